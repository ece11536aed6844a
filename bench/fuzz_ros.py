"""Messages and requests of a graph, given to what reads them of it: for `fuzz_targets`."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import numpy as np

from bench.fuzz_base import ROBOT, Target, everything
from bench.fuzz_mutations import FLOATS, any_value, mutated_bytes
from ssql_ros.contract import ContractError
from ssql_ros.contract.contract_file import read_contract
from ssql_ros.contract.fields import JOINT_STATE


class Messages(Target):
    """Serialised messages of every type that a contract, a shield, a learner or a bag's reader takes, to numbers."""

    def __init__(self) -> None:
        from rclpy.serialization import serialize_message

        from ssql_ros.bags.roles import ACCOUNT, EPISODE, PROPOSAL, Role, reader_for
        from ssql_ros.contract.messages import CommandReader, InputReader, check_stamp, fill, fill_joint_command
        from ssql_ros.data.transitions import COMMAND, CONTEXT, ENDING
        from ssql_ros.drivers.scripted import ScriptedRobot
        from ssql_ros.msg import Episode, Proposal, ShieldedAction
        from ssql_ros.nodes.sensors import sensor_message
        from ssql_ros.ros.inputs import message_type, parser_of

        contract = read_contract(everything(), "fuzz.yaml")
        self._valid: list[tuple[Callable[[bytes], Any], bytes]] = []
        readings = ScriptedRobot(contract).readings()
        for name, source in contract.inputs.items():
            message = sensor_message(source.type, readings[name], 10**9)
            self._valid.append(
                (_both(parser_of(source.type), InputReader(contract, source), check_stamp), _cdr(message))
            )
        reader, command = CommandReader(contract, "fuzz"), message_type(JOINT_STATE)()
        fill_joint_command(command, contract, np.zeros(1), 10**9)
        self._valid.append((_both(parser_of(JOINT_STATE), reader.joint_command, check_stamp), _cdr(command)))
        proposal = fill(Proposal(), action=[0.1], mean=[0.0], std=[0.2], context=[1.0, 2.0])
        told = serialize_message(proposal)
        self._valid.append((_ros(Proposal, reader.proposal), told))
        array = message_type("std_msgs/msg/Float64MultiArray")()
        self._valid.append((_ros(type(array), reader.array_command), serialize_message(fill(array, data=np.ones(1)))))
        account = serialize_message(fill(ShieldedAction(), proposal=[0.1], action=[0.1]))
        for role, data in (
            (Role(COMMAND, ACCOUNT), account),
            (Role(CONTEXT, PROPOSAL), told),
            (Role(ENDING, EPISODE), serialize_message(Episode())),
        ):
            self._valid.append((reader_for(role, contract, None), data))

    def make(self, rng: Random) -> Any:
        read, data = rng.choice(self._valid)
        return read, mutated_bytes(rng, data)

    def run(self, given: Any) -> bool:
        read, data = given
        read(data)
        return True


def _cdr(message: Any) -> bytes:
    from rclpy.serialization import serialize_message

    return bytes(serialize_message(message))


def _both(parse: Callable[[bytes], Any], read: Callable[[Any], Any], check: Callable[..., Any]) -> Any:
    """Return what a shield does with the bytes of a topic."""

    def reading(data: bytes) -> None:
        message = parse(data)
        read(message)
        check(message, "fuzz")

    return reading


def _ros(kind: Any, read: Callable[[Any], Any]) -> Any:
    """Return what a shield does with the bytes of a proposal: what rclpy makes of them, read."""
    from rclpy.serialization import deserialize_message

    def reading(data: bytes) -> None:
        try:
            message = deserialize_message(data, kind)
        except Exception as error:  # as ShieldInputs does: rclpy says only that it cannot
            raise ContractError(str(error)) from error
        read(message)

    return reading


class Requests(Target):
    """Parameters that are set, and services that are called, of a shield, through the callbacks of rclpy's own."""

    errors = ()

    def __init__(self) -> None:
        import rclpy

        from ssql_ros.graph.processes import isolate
        from ssql_ros.nodes.shield_node import PARAMETERS, ShieldNode

        isolate()
        rclpy.init(args=["fuzz", "--ros-args", "--log-level", "fatal", "-p", f"contract:={ROBOT}"])
        self._node = ShieldNode()
        self._node.trigger_configure()
        self._names = [*(parameter.name for parameter in PARAMETERS), "use_sim_time", "unknown", ""]

    def make(self, rng: Random) -> Any:
        if rng.random() < 0.1:
            return rng.choice(("enable", "reload", "rollback", "reset_fault")), rng.random() < 0.5
        return rng.choice(self._names), self._value(rng)

    @staticmethod
    def _value(rng: Random) -> Any:
        value = any_value(rng, 3)
        kind = rng.randrange(6)
        if kind == 0:
            return rng.choice(("enforce", "monitor", "disabled", "", "0.2", "nan", "1e999"))
        if kind == 1:
            return [rng.choice(FLOATS) for _ in range(3)]
        if kind == 2:
            return rng.choice((2**63 - 1, -(2**63), 0, -1, 10**9))
        return value

    def run(self, given: Any) -> bool:
        from rcl_interfaces.msg import ParameterValue
        from rcl_interfaces.srv import SetParameters
        from rclpy.parameter import Parameter
        from rclpy.serialization import deserialize_message, serialize_message
        from std_srvs.srv import SetBool, Trigger

        name, value = given
        services = {service.srv_name.rpartition("/")[2]: service for service in self._node.services}
        if name in ("enable", "reload", "rollback", "reset_fault"):
            kind: Any = SetBool if name == "enable" else Trigger
            request = kind.Request(**({"data": value} if name == "enable" else {}))
            return bool(services[name].callback(request, kind.Response()).success)
        try:
            message = Parameter(name, value=value).to_parameter_msg()
        except (ValueError, TypeError, OverflowError, AssertionError, UnicodeError, AttributeError):
            return False  # what no message can say
        message.value = message.value or ParameterValue()
        try:
            # Only what comes over the wire.
            wire = serialize_message(SetParameters.Request(parameters=[message]))
            request = deserialize_message(wire, SetParameters.Request)
        except Exception:
            return False
        answer = services["set_parameters"].callback(request, SetParameters.Response())
        return all(result.successful for result in answer.results)

    def close(self) -> None:
        import rclpy

        self._node.close()
        self._node.destroy_node()
        rclpy.try_shutdown()

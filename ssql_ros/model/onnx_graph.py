"""Networks of a bundle as ONNX graphs, built from its own arrays: to score candidates here, and to act elsewhere."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from onnx import TensorProto, checker, helper, numpy_helper

from ssql_ros.model.bundle import Bundle, BundleError, Network

# What is one forward pass, and so can be told by a graph: no behaviour policy is asked in between.
EXPORTED = ("squashed_gaussian", "one_step_flow")


class OnnxGraph:
    """A graph that grows node by node."""

    def __init__(self, activation: str) -> None:
        self._nodes: list[Any] = []
        self._constants: list[Any] = []
        self._plain = {"relu": "Relu", "tanh": "Tanh", "elu": "Elu"}.get(activation)
        if self._plain is None:
            for name, value in (("root_half", math.sqrt(0.5)), ("half", 0.5), ("one", 1.0)):
                self.constant(name, np.array(value))

    def constant(self, name: str, value: np.ndarray, kind: type = np.float32) -> str:
        """Add a constant; return its name."""
        self._constants.append(numpy_helper.from_array(np.ascontiguousarray(value, kind), name))
        return name

    def node(self, kind: str, inputs: list[str], output: str, **attributes: object) -> str:
        """Add a node; return the name of its output."""
        self._nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    def activated(self, x: str, name: str) -> str:
        """Add what stands between layers; return its output."""
        if self._plain is not None:
            return self.node(self._plain, [x], name)
        # gelu(x) = x / 2 (1 + erf(x / sqrt 2))
        error = self.node("Erf", [self.node("Mul", [x, "root_half"], f"{name}.in")], f"{name}.erf")
        half, cdf = self.node("Mul", [x, "half"], f"{name}.half"), self.node("Add", [error, "one"], f"{name}.cdf")
        return self.node("Mul", [half, cdf], name)

    def model(self, name: str, inputs: dict[str, list[Any]], outputs: dict[str, list[Any]]) -> bytes:
        """Return the checked model; inputs and outputs: float32, their shapes by name."""
        told = [
            [helper.make_tensor_value_info(each, TensorProto.FLOAT, shape) for each, shape in ends.items()]
            for ends in (inputs, outputs)
        ]
        graph = helper.make_graph(self._nodes, name, *told, self._constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        checker.check_model(model)
        return model.SerializeToString()


def policy_network(bundle: Bundle) -> Network:
    """Return the network of a policy that one forward pass tells. Raises BundleError: it is of another kind."""
    network = bundle.need("policy")
    if bundle.policy_kind not in EXPORTED:
        raise BundleError(
            f"{bundle.path}: policy_kind: expected {' or '.join(EXPORTED)}, got {bundle.policy_kind!r}, whose actions "
            "are brought into the support of a behaviour policy, which no such graph holds: policy_node serves it"
        )
    return network


def policy_model(bundle: Bundle) -> bytes:
    """Return a bundle's policy as an ONNX model: observation [batch, n] -> action [batch, m], the most probable one.

    squashed_gaussian: tanh of the mean; one_step_flow: mu(s, 0), clipped. Ensembles are averaged in what they put out.

    Raises:
        BundleError: it has no policy, or one that no network alone tells.
    """
    network = policy_network(bundle)
    graph, bound = OnnxGraph(network.activation), network.observation_clip
    # In double precision: a joint's mean may be large against its scale.
    wide = graph.node("Cast", ["observation"], "wide", to=TensorProto.DOUBLE)
    centred = graph.node("Sub", [wide, graph.constant("mean", network.observation_mean, np.float64)], "centred")
    scaled = graph.node("Div", [centred, graph.constant("scale", network.observation_scale, np.float64)], "scaled")
    ends = [graph.constant(name, np.array(value), np.float64) for name, value in (("low", -bound), ("high", bound))]
    state = graph.node("Cast", [graph.node("Clip", [scaled, *ends], "clipped")], "state", to=TensorProto.FLOAT)
    n, outputs = len(network.observation_mean), []
    for m, member in enumerate(network.members):
        x = state
        for i, layer in enumerate(member):
            # The rows of noise, which is 0, count for nothing.
            weight = layer.weight[:n] if i == 0 else layer.weight
            x = x if i == 0 else graph.activated(x, f"{m}.{i}.x")
            names = [graph.constant(f"{m}.{i}.w", weight), graph.constant(f"{m}.{i}.b", layer.bias)]
            x = graph.node("Gemm", [x, *names], f"{m}.{i}.y")
        outputs.append(x)
    mean = graph.node("Mean", outputs, "mean_output")
    n_action = network.members[0][-1].bias.size
    if bundle.policy_kind == "squashed_gaussian":
        n_action //= 2
        graph.constant("begin", np.array([0]), np.int64)
        graph.constant("end", np.array([n_action]), np.int64)
        graph.constant("axis", np.array([1]), np.int64)
        graph.node("Tanh", [graph.node("Slice", [mean, "begin", "end", "axis"], "u")], "action")
    else:
        ends = [graph.constant("least", np.array(-1.0)), graph.constant("most", np.array(1.0))]
        graph.node("Clip", [mean, *ends], "action")
    return graph.model("policy", {"observation": ["batch", n]}, {"action": ["batch", n_action]})

"""Keeps a node alive whatever a callback raises: logged once for each kind, counted, and shown by whoever owns it."""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Callable
from typing import Any

import rclpy
from rclpy.executors import ExternalShutdownException
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn

from ssql_ros.ros.executor import executor_for


class Guard:
    """What went wrong in one node's callbacks.

    Attributes:
        counts: exceptions, by where and what they were.
    """

    def __init__(self, logger: Any) -> None:
        self.counts: Counter[str] = Counter()
        self._logger = logger

    def note(self, where: str, error: Exception) -> None:
        """Count an exception, and log it where it is the first of its kind."""
        kind = f"{where}: {type(error).__name__}"
        self.counts[kind] += 1
        if self.counts[kind] == 1:
            self._logger.error(
                f"{where}: {error!r}; the node goes on, and counts more of them on /diagnostics\n"
                f"{''.join(traceback.format_exception(error))}"
            )

    def __call__(self, where: str, callback: Callable[..., Any]) -> Callable[..., Any]:
        """Return `callback` such that nothing it raises gets out."""

        def guarded(*arguments: Any) -> Any:
            try:
                return callback(*arguments)
            except Exception as error:  # whatever it is, the node must go on
                self.note(where, error)
                return None

        return guarded

    def service(self, where: str, callback: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
        """Return a service's callback whose answer says what it raises; responses have success and message."""

        def guarded(request: Any, response: Any) -> Any:
            try:
                return callback(request, response)
            except Exception as error:
                self.note(where, error)
                response.success, response.message = False, f"failed: {error}"
                return response

        return guarded

    def spin(self, node: Any, stopped: Callable[[], bool]) -> None:
        """Serve a node's callbacks until `stopped()`; a message that cannot even be decoded ends nothing either."""
        executor = executor_for(node)
        try:
            while rclpy.ok() and not stopped():
                try:
                    executor.spin_once(timeout_sec=0.1)
                except ExternalShutdownException:
                    return
                except Exception as error:
                    self.note("message", error)
        finally:
            executor.remove_node(node)
            executor.shutdown()


class GuardedLifecycle(LifecycleNode):
    """A lifecycle node whose transitions fail where their methods raise, and that lives through those not allowed.

    rclpy swallows exceptions of transitions, so each is caught, logged and fails the transition. And it lets the error
    of one that the state does not allow out of the service's callback, which ends the process (ros2/rclpy#1209): a
    lifecycle manager that configures what is configured already would take the shield away.
    """

    def configure(self) -> None:
        """Prepare, to be activated."""

    def activate(self) -> None:
        """Begin."""

    def deactivate(self) -> None:
        """Stop."""

    def cleanup(self) -> None:
        """Forget what `configure` prepared."""

    def close(self) -> None:
        """Stop for good, whatever the state."""

    def on_configure(self, _state: LifecycleState) -> TransitionCallbackReturn:
        """Transition of a lifecycle node."""
        return self._transition("configure", self.configure)

    def on_activate(self, _state: LifecycleState) -> TransitionCallbackReturn:
        """Transition of a lifecycle node."""
        return self._transition("activate", self.activate)

    def on_deactivate(self, _state: LifecycleState) -> TransitionCallbackReturn:
        """Transition of a lifecycle node."""
        return self._transition("deactivate", self.deactivate)

    def on_cleanup(self, _state: LifecycleState) -> TransitionCallbackReturn:
        """Transition of a lifecycle node."""
        return self._transition("clean up", self.cleanup)

    def on_shutdown(self, _state: LifecycleState) -> TransitionCallbackReturn:
        """Transition of a lifecycle node."""
        return self._transition("shut down", self.close)

    def _transition(self, name: str, act: Callable[[], None]) -> TransitionCallbackReturn:
        try:
            act()
        except Exception as error:  # whatever it is, it must be seen
            self.get_logger().error(f"cannot {name}: {error}")
            return TransitionCallbackReturn.FAILURE
        return TransitionCallbackReturn.SUCCESS

    def _LifecycleNodeMixin__on_change_state(self, request: Any, response: Any) -> Any:
        try:
            return super()._LifecycleNodeMixin__on_change_state(request, response)
        except Exception as error:
            wanted = request.transition.label or request.transition.id
            state = self._state_machine.current_state[1]
            self.get_logger().error(f"change_state: transition {wanted} is refused in the state {state}: {error}")
            response.success = False
            return response

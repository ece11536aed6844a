"""Keeps a node alive whatever a callback raises: logged once for each kind, counted, and shown by whoever owns it."""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Callable
from typing import Any

import rclpy
from rclpy.executors import ExternalShutdownException

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


class GuardedLifecycle:
    """Base of a lifecycle node that lives through a transition that its state does not allow.

    rclpy lets the error out of the service's callback, which ends the process (ros2/rclpy#1209): a lifecycle manager
    that configures what is configured already would take the shield away.
    """

    def _LifecycleNodeMixin__on_change_state(self, request: Any, response: Any) -> Any:
        try:
            return super()._LifecycleNodeMixin__on_change_state(request, response)  # type: ignore[misc]
        except Exception as error:
            wanted = request.transition.label or request.transition.id
            state = self._state_machine.current_state[1]  # type: ignore[attr-defined]
            self.get_logger().error(  # type: ignore[attr-defined]
                f"change_state: transition {wanted} is refused in the state {state}: {error}"
            )
            response.success = False
            return response

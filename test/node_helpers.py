"""A node's program in this process: torch and ROS are loaded once, not for each thing that is refused."""

import signal
from collections.abc import Callable

import pytest

from ssql_ros.graph import parameter_text


def refusal(main: Callable[[], int], capfd: pytest.CaptureFixture[str], **parameters: object) -> str:
    """What a node says that does not start with these parameters."""
    settings = [word for name, value in parameters.items() for word in ("-p", f"{name}:={parameter_text(value)}")]
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    capfd.readouterr()
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("sys.argv", ["node", "--ros-args", *settings])
            assert main() == 2
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return capfd.readouterr().err

"""A node's program in this process: torch and ROS are loaded once, not for each thing that is refused."""

import importlib
import signal

import pytest

from ssql_ros.graph.processes import parameter_text


def run_main(node: str, capfd: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """Run a node that ends by itself; return its exit status, and what it wrote on stdout and stderr."""
    main = importlib.import_module(f"ssql_ros.nodes.{node}").main
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    capfd.readouterr()
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("sys.argv", [node, *words])
            status = main()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return status, *capfd.readouterr()


def refusal(node: str, capfd: pytest.CaptureFixture[str], **parameters: object) -> str:
    """What a node says that does not start with these parameters."""
    settings = [word for name, value in parameters.items() for word in ("-p", f"{name}:={parameter_text(value)}")]
    status, _, error = run_main(node, capfd, "--ros-args", *settings)
    assert status == 2
    return error

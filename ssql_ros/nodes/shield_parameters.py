"""The parameters of the shield node."""

from __future__ import annotations

from ssql_ros.robots import DEFAULT
from ssql_ros.ros import model_receiver
from ssql_ros.ros.parameters import Parameter

PARAMETERS = (
    Parameter("contract", DEFAULT, "robot name or path of its contract YAML", fixed=True),
    Parameter("bundle", "", "path of the bundle with the safety critic; empty: the one shipped for the robot"),
    Parameter(
        "mode",
        "enforce",
        "enforce the decisions, or only monitor them; disabled: ~/enable took the shield out",
        choices=("enforce", "monitor", "disabled"),
    ),
    Parameter("epsilon", None, "threshold on q_safe, above 0 and below 1; not set or empty: the bundle's own"),
    Parameter(
        "delta_margin", 0.0, "critics of margins: subtracted from delta, in the margin's unit", low=0.0, high=1e9
    ),
    Parameter("allow_rule_change", False, "a critic of margins may replace one of probabilities, and the reverse"),
    Parameter("candidates", 100, "candidate actions drawn per round (k)", low=1, high=10000),
    Parameter("rounds", 3, "rounds of candidates before the least risky action is taken", low=1, high=20),
    Parameter("growth", 1.5, "factor on the candidates' spread from round to round", low=1.0, high=10.0),
    Parameter("spread", 0.4, "std around a plain command, as a fraction of half the action range", low=1e-3, high=2.0),
    Parameter("nearest", False, "take the most probable safe candidate instead of drawing from the masked policy"),
    Parameter("seed", 0, "seed of the candidates", low=0, high=2**31 - 1, fixed=True),
    Parameter("autostart", True, "configure at start and activate on the first whole observation", fixed=True),
    Parameter("command_type", "joint_state", "type of joint_commands", choices=("joint_state", "forward"), fixed=True),
    Parameter(
        "realtime_priority", 0, "SCHED_FIFO priority of the threads that decide; 0: normal", low=0, high=99, fixed=True
    ),
    Parameter(
        "takeover_timeout",
        0.5,
        "s, how long an operator's command counts, and how long after the last one the controller is kept out",
        low=0.02,
        high=60.0,
        fixed=True,
    ),
    *model_receiver.PARAMETERS,
)

"""The keys of a contract file, section by section: what is read, and what the reference says of it.

`contract_file` refuses every key that does not stand here, and checks what a key's value must be beyond its type.
"""

from __future__ import annotations

from dataclasses import dataclass

ON_INCIDENT = ("continue", "hold", "damp", "backup")
ON_OUT_OF_DOMAIN = ("warn", "backup", "stop")


@dataclass(frozen=True)
class Key:
    """One key.

    Attributes:
        kind: what its value is, in words.
        unit: of its value; empty: none, or that of another key.
    """

    name: str
    kind: str
    description: str
    unit: str = ""
    optional: bool = False


@dataclass(frozen=True)
class Keys:
    """The keys of one mapping of the file; `place`: where it stands."""

    place: str
    description: str
    keys: tuple[Key, ...]

    @property
    def required(self) -> tuple[str, ...]:
        """Return the names of the keys that must be there."""
        return tuple(key.name for key in self.keys if not key.optional)

    @property
    def optional(self) -> tuple[str, ...]:
        """Return the names of the keys that may be there."""
        return tuple(key.name for key in self.keys if key.optional)


TOP = Keys(
    "",
    "The whole file.",
    (
        Key("robot", "name", "name of the robot; bundles that are shipped for it begin with it"),
        Key("control_period", "number above 0", "one command every period", "s"),
        Key(
            "command_timeout",
            "number, at least control_period",
            "the driver holds the safe action when no command came for this long (default: 2 control periods)",
            "s",
            True,
        ),
        Key("inputs", "mapping", "what the driver publishes, by a name of your choice"),
        Key("observation", "mapping", "how messages become the observation vector"),
        Key("action", "mapping", "what the action vector means in joint commands"),
        Key("incident", "list", "the failure set; an incident is a state inside any of its terms"),
        Key(
            "safe_action",
            "list of numbers, `zero` or `hold`",
            "what the robot is told when nothing can be decided on, one number an action element, inside its bounds; "
            "`zero`: zeros, moved into the bounds; `hold`, for commands of positions: the measured pose",
        ),
        Key("reward", "mapping", "what a step is worth; no part of the contract's id", optional=True),
        Key(
            "on_incident",
            "`continue`, `hold`, `damp` or `backup`",
            "what goes to the robot from an incident on, until ~/reset_fault: `hold`: safe_action; `damp`: of "
            "positions the measured ones, each period anew, of velocities and efforts zeros; `backup`: the critic's "
            "backup, else safe_action; `continue`: it is only told (default: `continue`); no part of the contract's id",
            optional=True,
        ),
        Key(
            "on_out_of_domain",
            "`warn`, `backup` or `stop`",
            "what goes to the robot where its critic was never trained: `backup`: the critic's backup, else "
            "safe_action, until it is back; `stop`: safe_action, until ~/reset_fault; `warn`: it is only told "
            "(default: `warn`); no part of the contract's id",
            optional=True,
        ),
    ),
)
INPUT = Keys(
    "inputs.NAME",
    "One topic of the driver.",
    (
        Key("topic", "name", "relative, so that it can be remapped; one that begins with `/` is taken as it stands"),
        Key("type", "message type", "one of those below"),
        Key(
            "max_age",
            "number above 0",
            "older data is stale, and the safe action is held (default: 2 control periods)",
            "s",
            True,
        ),
        Key(
            "stamps",
            "`header` or `arrival`",
            "`arrival`: the driver sets no stamps that can be used; the time at which a message came stands in "
            "(default: `header`; of types without a header `arrival`, and nothing else)",
            optional=True,
        ),
        Key(
            "max_speed",
            "number above 0",
            "what moves further in a control period was put elsewhere (a reset, a robot that is carried): episodes are "
            "cut there (default: judged by the measured velocities)",
            "m/s or rad/s",
            optional=True,
        ),
        Key(
            "frame_id",
            "name",
            "of a geometry_msgs/msg/PoseStamped: a message in another frame is refused (default: any is taken)",
            optional=True,
        ),
    ),
)
OBSERVATION = Keys(
    "observation",
    "How messages become the observation vector.",
    (
        Key("trigger", "name of an input", "each new message of it begins a new frame"),
        Key(
            "max_skew",
            "number above 0",
            "how far the other inputs' stamps may lie from the trigger's (default: a quarter of a control period)",
            "s",
            True,
        ),
        Key(
            "episode_gap",
            "number above 0",
            "a longer pause between stamps begins a new history (default: 5 control periods)",
            "s",
            True,
        ),
        Key("frame", "list", "what one control period measures"),
        Key(
            "vector",
            "list of blocks",
            "what the observation vector is made of, in this order (default: the frame alone)",
            optional=True,
        ),
        Key("derived", "list", "weighted sums of the frame's features", optional=True),
        Key(
            "incomplete_history",
            "`flag` or `hold`",
            "what is decided before the history is whole is flagged, or the safe action is held (default: `flag`)",
            optional=True,
        ),
    ),
)
FEATURE = Keys(
    "observation.frame[i]",
    "One number of a frame.",
    (
        Key("name", "name", "used once among frame and derived"),
        Key("input", "name of an input", "where it comes from"),
        Key("field", "field of the message", "one of those below"),
        Key("unit", "unit", "the field's, or one that converts to it; see below"),
        Key("joint", "name of a joint", "for sensor_msgs/msg/JointState, and only there", optional=True),
        Key("scale", "number", "factor on the value (default: 1)", optional=True),
        Key("wrap", "true or false", "wrap an angle in rad to [-pi, pi] (default: false)", optional=True),
        Key("function", "`sin` or `cos`", "of an angle in rad, in place of the angle; it has no unit", optional=True),
    ),
)
DERIVED = Keys(
    "observation.derived[i]",
    "One derived feature, in the unit of the features that it sums.",
    (
        Key("name", "name", "used once among frame and derived"),
        Key("sum", "mapping of features to numbers", "its weights"),
    ),
)
BLOCK = Keys(
    "observation.vector[i]",
    "One block of the observation vector. Past frames and actions come newest first.",
    (
        Key("block", "`frame`, `past_frames`, `past_actions` or `derived`", "what it holds"),
        Key(
            "count", "whole number, at least 1", "how many; for past_frames and past_actions, and only there", "", True
        ),
        Key("scale", "number", "factor on its values (default: 1)", optional=True),
    ),
)
ACTION = Keys(
    "action",
    "What the action vector means: command = offset + weighted sum of the action's elements.",
    (
        Key("elements", "list", "the action vector, in this order"),
        Key("command", "mapping", "the message that the driver takes"),
        Key(
            "joints",
            "list",
            "of commands by joint, and only there: the joints, in the order that a forwarded Float64MultiArray has",
            optional=True,
        ),
        Key(
            "parts",
            "list",
            "of any other type: a twist's (linear.x ... angular.z), or names for the numbers of one Float64 or "
            "Float64MultiArray in their order",
            optional=True,
        ),
    ),
)
ELEMENT = Keys(
    "action.elements[i]",
    "One element of the action vector.",
    (
        Key("name", "name", "used once"),
        Key("low", "number, below high", "its lower bound"),
        Key("high", "number", "its upper bound"),
    ),
)
COMMAND = Keys(
    "action.command",
    "The message that the driver takes.",
    (
        Key(
            "topic",
            "name",
            "relative, so that it can be remapped; with `{joint}` in it, of a Float64, each joint has a topic of its "
            "own, with its name there, or with `{joint_lower}` its name in small letters",
        ),
        Key(
            "type",
            "message type",
            "sensor_msgs/msg/JointState, trajectory_msgs/msg/JointTrajectory (a point a message), "
            "geometry_msgs/msg/Twist or TwistStamped, std_msgs/msg/Float64 or Float64MultiArray",
        ),
        Key(
            "field",
            "`position`, `velocity` or `effort`",
            "what is commanded; of commands by joint (JointState, JointTrajectory, a Float64 for each), and only there",
            "",
            True,
        ),
        Key(
            "unit",
            "unit",
            "of the offsets and weights; commands by joint must have it, a twist's parts are in m/s and rad/s "
            "(default: 1)",
            optional=True,
        ),
        Key(
            "max_rate",
            "number above 0",
            "how fast a joint's command may move where its source changes: activation, safe action and back, a swap "
            "(default: not bounded)",
            "unit / s",
            True,
        ),
        Key(
            "reliability",
            "`reliable` or `best_effort`",
            "of those who propose commands: a controller that publishes best effort is heard with `best_effort` alone "
            "(default: `reliable`); no part of the contract's id",
            optional=True,
        ),
    ),
)
JOINT = Keys(
    "action.joints[i], action.parts[i]",
    "The command of one joint, or of one part of the message.",
    (
        Key("name", "name", "of the joint, as the driver takes it in a JointState, or of the part"),
        Key("offset", "number", "its command at an action of zeros (default: 0)", "unit", True),
        Key("sum", "mapping of action elements to numbers", "its weights", "unit"),
        Key(
            "couples",
            "list of at least 2 names",
            "joints whose sum it commands, where one motor drives several; they are measured, it is not (default: the "
            "joint of its own name)",
            optional=True,
        ),
        Key("lower", "number", "its least command: no action may mean less", "unit", True),
        Key("upper", "number, above lower", "its largest command: no action may mean more", "unit", True),
        Key(
            "velocity", "number above 0", "how fast it can move; bounds its command as max_rate does", "unit / s", True
        ),
        Key(
            "acceleration",
            "number above 0",
            "how fast its speed can change; bounds its command where its source changes; it must have a velocity, or "
            "the command a max_rate",
            "unit / s^2",
            True,
        ),
        Key("effort", "number above 0", "what it can exert; told to who asks", "N m", True),
    ),
)
LIMIT = Keys(
    "incident[i], a limit",
    "The failure set beyond a limit.",
    (
        Key("feature", "name of a feature", "of frame or derived"),
        Key("unit", "unit", "must be the feature's own"),
        Key("above", "number", "an incident above it; one of the two must be there", "unit", True),
        Key("below", "number", "an incident below it", "unit", True),
    ),
)
BOX = Keys(
    "incident[i], a box",
    "The failure set inside a box.",
    (
        Key("inside", "mapping of features to [low, high]", "its sides", "unit"),
        Key("unit", "unit", "must be that of every feature in it"),
    ),
)
BALL = Keys(
    "incident[i], a ball",
    "The failure set within a distance of a point.",
    (
        Key("within", "number above 0", "its radius", "unit"),
        Key("of", "mapping of features to numbers", "its centre", "unit"),
        Key("unit", "unit", "must be that of every feature in it"),
    ),
)
FORWARD_VELOCITY = Keys(
    "reward, kind `forward_velocity`",
    "goal - |goal - clip(v_x, -limit, limit)| - acceleration_weight mean |a_t - 2 a_(t-1) + a_(t-2)|.",
    (
        Key("kind", "name", "`forward_velocity`"),
        Key("input", "name of an input", "a nav_msgs/msg/Odometry"),
        Key("goal", "number", "wanted velocity along x", "m/s"),
        Key("limit", "number above 0", "velocities beyond it count as it", "m/s"),
        Key("acceleration_weight", "number", "price of jerky actions"),
        Key("action_scale", "number above 0", "factor on the actions in that price"),
    ),
)
DISTANCE = Keys(
    "reward, kind `distance`",
    "Minus the distance to a place, before the step.",
    (
        Key("kind", "name", "`distance`"),
        Key("input", "name of an input", "a nav_msgs/msg/Odometry"),
        Key("goal", "list of 1 to 3 numbers", "x, or x and y, or x, y and z", "m"),
    ),
)
SECTIONS = (
    TOP, INPUT, OBSERVATION, FEATURE, DERIVED, BLOCK, ACTION, ELEMENT, COMMAND, JOINT, LIMIT, BOX, BALL,
    FORWARD_VELOCITY, DISTANCE,
)  # fmt: skip

"""Names of the Shadow Hand's joints and commands, and how the commands reach the joints."""

JOINTS_OF = {"FF": 4, "LF": 5, "MF": 4, "RF": 4, "TH": 5, "WR": 2}
FINGERS = ("FF", "LF", "MF", "RF")  # those whose last two joints share a motor

# As the real hand's driver has them, in its order.
JOINTS = tuple(f"rh_{part}J{i}" for part, count in JOINTS_OF.items() for i in range(1, count + 1))
# J1 and J2 of a finger share a motor: their command is that of J0 = J1 + J2.
COUPLED = {f"rh_{finger}J0": (f"rh_{finger}J1", f"rh_{finger}J2") for finger in FINGERS}
COMMANDS = tuple(
    f"rh_{part}J{i}"
    for part, count in JOINTS_OF.items()
    for i in (*((0,) if part in FINGERS else ()), *range(3 if part in FINGERS else 1, count + 1))
)
# Which command a joint follows, and its share of it: both joints of a motor bend alike.
FOLLOWS = tuple(
    (COMMANDS.index(name), 1.0) if name in COMMANDS else (COMMANDS.index(f"{name[:-1]}0"), 0.5) for name in JOINTS
)
# rad, by command, 0 where none is given: a bowl of fingers that holds the cube by itself.
_CUP = {
    **dict.fromkeys(COUPLED, 1.1),
    **{f"rh_{finger}J3": 0.6 for finger in FINGERS},
    "rh_LFJ5": 0.3,
    "rh_THJ4": 0.9,
    "rh_THJ1": -0.5,
}
CUP = tuple(_CUP.get(name, 0.0) for name in COMMANDS)

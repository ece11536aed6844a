"""The Shadow Hand as a URDF, generated at first use from the description in the package gymnasium-robotics.

Nothing of that description is shipped here. It is the MJCF file hand/robot.xml, after models by Shadow Robot and code
by Vikash Kumar (Apache License 2.0; the package itself is MIT); its LICENSE.md is put beside the file that is made of
it. Joints get the names of the real hand, which counts them from 1: FFJ0 of the MJCF is rh_FFJ1.
"""

import hashlib
import math
import os
import re
import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

PACKAGE, FOLDER = "gymnasium-robotics", "gymnasium_robotics"
MISSING = f"the Shadow Hand's description is not installed: pip install --no-deps {PACKAGE}"
MIN_INERTIA = 3e-5  # kg m^2: below it the solver shakes; 1e-4 makes the fingers too calm
GENERATOR = 1  # goes up when what is generated changes
CREDIT = (
    " Generated from hand/robot.xml of {package} {version}, by ssql_sim. The hand is after models by Shadow Robot and "
    "code by Vikash Kumar, Apache License 2.0: see LICENSE.md, which must be kept together with this file. "
)


class Limits(NamedTuple):
    """What a joint can do."""

    low: float  # rad
    high: float  # rad
    effort: float  # N m


class HandModel(NamedTuple):
    """The generated file and what it says of the joints, by the real hand's names."""

    path: Path
    limits: dict[str, Limits]


def hand_model() -> HandModel:
    """The URDF file in the user's cache (XDG_CACHE_HOME, else ~/.cache), made first where it is not there.

    Written whole under another name and renamed, so that processes that start together do not meet half a file. The
    folder is named after the package's version and the place of its meshes.

    Raises:
        ModuleNotFoundError: gymnasium-robotics is missing; the text has the command that installs it.
        ValueError: its description is not as expected.
    """
    assets = _assets()
    release = version(PACKAGE)
    place = hashlib.sha256(f"{assets} {GENERATOR}".encode()).hexdigest()[:8]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ssql_ros"
    folder = cache / f"shadow_hand-{release}-{place}"
    path = folder / "shadow_hand.urdf"
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        _write(folder / "LICENSE.md", (assets / "LICENSE.md").read_bytes())
        _write(path, generate(assets, release))
    return HandModel(path, _read_limits(path))


def generate(assets: Path, release: str) -> bytes:
    """The URDF, of the assets' folder of that package and its version. Raises ValueError: not as expected."""
    source = ElementTree.parse(assets / "hand" / "robot.xml").getroot()
    forearm = source.find(".//body[@name='robot0:forearm']")
    if forearm is None:
        raise ValueError(f"{assets / 'hand' / 'robot.xml'}: expected a body robot0:forearm, found none")
    shared = ElementTree.parse(assets / "hand" / "shared.xml").getroot()
    meshes = ElementTree.parse(assets / "hand" / "shared_asset.xml").getroot()
    writer = _Writer(
        efforts={_short(one.get("joint", "")): _floats(one, "forcerange")[1] for one in shared.iter("position")},
        meshes={
            one.get("name", ""): (assets / "stls" / "hand" / one.get("file", ""), one.get("scale", "1 1 1"))
            for one in meshes.iter("mesh")
        },
    )
    robot = Element("robot", name="shadow_hand")
    robot.append(ElementTree.Comment(CREDIT.format(package=PACKAGE, version=release)))
    writer.add(robot, forearm, None)
    ElementTree.indent(robot)
    return ElementTree.tostring(robot, encoding="utf-8", xml_declaration=True)


def touching_pairs() -> list[tuple[str, str]]:
    """The pairs of links of the hand that collide with each other; all others pass through. Raises as `hand_model`."""
    shared = ElementTree.parse(_assets() / "hand" / "shared.xml").getroot()
    pairs = [
        tuple(re.sub("C_|[0-9]$", "", _short(one.get(f"geom{i}", ""))) for i in (1, 2)) for one in shared.iter("pair")
    ]
    return sorted({(a, b) for a, b in pairs})


def _assets() -> Path:
    # Found, not imported: importing it brings MuJoCo.
    spec = find_spec(FOLDER)
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(MISSING, name=FOLDER)
    return Path(spec.submodule_search_locations[0]) / "envs" / "assets"


def _write(path: Path, content: bytes) -> None:
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    with os.fdopen(handle, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(name, path)


def _read_limits(path: Path) -> dict[str, Limits]:
    found = {}
    for joint in ElementTree.parse(path).getroot().iter("joint"):
        if (limit := joint.find("limit")) is not None:
            numbers = (float(limit.get(key, "nan")) for key in ("lower", "upper", "effort"))
            found[joint.get("name", "")] = Limits(*numbers)
    return found


class _Writer:
    """Turns bodies into links and their joints into revolute joints.

    Args:
        efforts: of the joints with an actuator, N m, by the MJCF's names.
        meshes: file and scale of each, by the MJCF's names.
    """

    def __init__(self, efforts: dict[str, float], meshes: dict[str, tuple[Path, str]]) -> None:
        self._efforts, self._meshes = efforts, meshes

    def add(self, robot: Element, body: Element, parent: str | None) -> None:
        """Add a body and all that hangs on it."""
        name = _short(body.get("name", ""))
        link = SubElement(robot, "link", name=name)
        self._inertia(link, body)
        for geom in body.findall("geom"):
            self._shape(link, geom)
        if parent is not None:
            self._joint(robot, body, parent, name)
        for child in body.findall("body"):
            self.add(robot, child, name)

    @staticmethod
    def _inertia(link: Element, body: Element) -> None:
        given = body.find("inertial")
        assert given is not None
        inertial = SubElement(link, "inertial")
        _origin(inertial, given)
        SubElement(inertial, "mass", value=given.get("mass", ""))
        diagonal = [max(MIN_INERTIA, number) for number in _floats(given, "diaginertia")]
        axes = dict(zip(("ixx", "iyy", "izz"), map(str, diagonal), strict=True))
        SubElement(inertial, "inertia", {**axes, "ixy": "0", "ixz": "0", "iyz": "0"})

    def _shape(self, link: Element, geom: Element) -> None:
        """Add a mesh to be seen, or a capsule or box to collide with. The forearm, off which all falls, has none."""
        seen = geom.get("class") == "robot0:D_Vizual"
        collides = geom.get("class") == "robot0:DC_Hand" and geom.get("type") in ("capsule", "box")
        if not seen and not collides:
            return
        shape = SubElement(link, "visual" if seen else "collision")
        _origin(shape, geom)
        geometry = SubElement(shape, "geometry")
        if seen:
            path, scale = self._meshes[geom.get("mesh", "")]
            SubElement(geometry, "mesh", filename=str(path), scale=scale)
            SubElement(SubElement(shape, "material", name="skin"), "color", rgba="0.87 0.87 0.89 1")
            return
        size = _floats(geom, "size")
        if geom.get("type") == "box":
            SubElement(geometry, "box", size=" ".join(str(2 * half) for half in size))
        else:
            SubElement(geometry, "capsule", radius=str(size[0]), length=str(2 * size[1]))

    def _joint(self, robot: Element, body: Element, parent: str, name: str) -> None:
        given = body.find("joint")
        kind = "fixed" if given is None else "revolute"
        joint = SubElement(robot, "joint", name=name if given is None else real_name(given.get("name", "")), type=kind)
        _origin(joint, body)
        SubElement(joint, "parent", link=parent)
        SubElement(joint, "child", link=name)
        if given is None:
            return
        low, high = _floats(given, "range")
        # A distal joint hangs on the middle one's tendon, and is as strong.
        mjcf = _short(given.get("name", ""))
        effort = self._efforts.get(mjcf) or self._efforts[re.sub("J0$", "J1", mjcf)]
        SubElement(joint, "axis", xyz=given.get("axis", ""))
        SubElement(joint, "limit", lower=str(low), upper=str(high), effort=str(effort), velocity="10")


def real_name(mjcf: str) -> str:
    """The real hand's name of a joint of the MJCF: robot0:FFJ0 is rh_FFJ1."""
    short = _short(mjcf)
    return f"rh_{short[:-1]}{int(short[-1]) + 1}"


def _short(name: str) -> str:
    return name.removeprefix("robot0:")


def _floats(element: Element, key: str) -> list[float]:
    return [float(number) for number in element.get(key, "").split()]


def _origin(parent: Element, source: Element) -> None:
    turn = " ".join(str(angle) for angle in _rpy(source))
    SubElement(parent, "origin", xyz=source.get("pos", "0 0 0"), rpy=turn)


def _rpy(source: Element) -> tuple[float, float, float]:
    """Fixed-axis roll, pitch, yaw, rad, of how an MJCF element is turned."""
    if source.get("euler"):
        # About turning axes x, y, z. Only single turns are in this file, for which the order does not matter.
        x, y, z = _floats(source, "euler")
        if sum(angle != 0.0 for angle in (x, y, z)) > 1:
            raise ValueError(f"expected a turn about one axis, got euler {source.get('euler')}")
        return x, y, z
    if source.get("axisangle"):
        *axis, angle = _floats(source, "axisangle")
        half = 0.5 * angle
        return _rpy_of([math.cos(half), *(math.sin(half) * a / math.hypot(*axis) for a in axis)])
    return _rpy_of(_floats(source, "quat") or [1.0, 0.0, 0.0, 0.0])


def _rpy_of(wxyz: Sequence[float]) -> tuple[float, float, float]:
    length = math.hypot(*wxyz)
    w, x, y, z = (number / length for number in wxyz)
    roll = math.atan2(2 * (w * x + y * z), 1 - 2 * (x * x + y * y))
    pitch = math.asin(min(1.0, max(-1.0, 2 * (w * y - z * x))))
    return roll, pitch, math.atan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z))

"""`pip install .`: the shield for users without ROS; its extras add learning, worlds and reports.

With ROS, CMakeLists.txt installs the same modules together with the messages.
"""

from pathlib import Path
from xml.etree import ElementTree

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
PACKAGE = ElementTree.parse(ROOT / "package.xml").getroot()


def share_files(folder: str) -> list[tuple[str, list[str]]]:
    """`data_files` that put `folder` where the ROS install has it: share/ssql_ros/<folder>."""
    paths = sorted(path for path in (ROOT / folder).rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return [(f"share/ssql_ros/{path.parent.relative_to(ROOT)}", [str(path.relative_to(ROOT))]) for path in paths]


def packages(name: str, folder: str) -> list[str]:
    """Import names of the package `name`, whose sources lie in `folder`, and of its subpackages."""
    return [name, *(f"{name}.{sub}" for sub in find_packages(folder))]


# ssql_ros/processes/missing.py tells who lacks one of these which extra to install.
EXTRAS = {
    "learn": ["gymnasium>=1.0", "tensorboardX>=2.6", "torch>=2.4"],
    "sim": ["gymnasium>=1.0", "pybullet>=3.2.6"],
    # The velocity-limited tasks; everything else does without.
    "mujoco": ["gymnasium[mujoco]>=1.4", "mujoco>=3.3,<4"],
    # The cube's world: the hand's description. Nothing of the package is imported.
    "hand": ["gymnasium>=1.0", "gymnasium-robotics>=1.3,<2", "pybullet>=3.2.6"],
    "report": ["matplotlib>=3.8"],
    "watch": ["textual>=6"],
    # The formats of others; one alone is enough for one of them.
    "data": ["h5py>=3.10", "minari>=0.5.2", "pyarrow>=15"],
    # Trackers of --track; one alone is enough for itself.
    "track": ["mlflow>=2.9", "trackio>=0.2", "wandb>=0.19"],
}

setup(
    name="ssql_ros",
    version=PACKAGE.findtext("version"),
    description=" ".join(PACKAGE.findtext("description").split()),
    license="Apache-2.0",
    author="ssql_ros contributors",
    python_requires=">=3.11",
    package_dir={"ssql_sim": "sim", "ssql_ros": "ssql_ros"},
    packages=[*packages("ssql_ros", "ssql_ros"), *packages("ssql_sim", "sim")],
    package_data={"": ["*.yaml", "*.html", "*.css", "*.js", "py.typed"]},
    data_files=share_files("config"),
    # What serves a robot: shield, policy and recorder. Lower bounds that the code needs; requirements.lock has the
    # versions that are tested.
    install_requires=[
        "cryptography>=41",
        "mcap>=1.2,<2",
        "numpy>=1.26",
        "onnx>=1.16",
        "onnxruntime>=1.18",
        "PyYAML>=6.0",
        "rosbags>=0.11,<0.12",
        "safetensors>=0.4",
        "tqdm>=4.66",
    ],
    extras_require={**EXTRAS, "all": sorted({name for names in EXTRAS.values() for name in names})},
    # The command, and the robots: CMakeLists.txt installs the same file.
    entry_points=(ROOT / "entry_points.txt").read_text(),
)

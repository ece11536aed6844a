"""`pip install .`: algorithms, shield and worlds for users without ROS.

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


setup(
    name="ssql_ros",
    version=PACKAGE.findtext("version"),
    description=" ".join(PACKAGE.findtext("description").split()),
    license="Apache-2.0",
    author="ssql_ros contributors",
    python_requires=">=3.10",
    package_dir={"ssql_sim": "sim", "ssql_ros": "ssql_ros"},
    packages=[*packages("ssql_ros", "ssql_ros"), *packages("ssql_sim", "sim")],
    package_data={"": ["*.yaml", "*.html", "*.css", "*.js", "py.typed"]},
    data_files=share_files("config"),
    # Lower bounds that the code needs; requirements.lock has the versions that are tested.
    install_requires=[
        "gymnasium>=1.0",
        "matplotlib>=3.8",
        "mcap>=1.2,<2",
        "numpy>=1.26",
        "onnx>=1.16",
        "onnxruntime>=1.18",
        "pybullet>=3.2.6",
        "PyYAML>=6.0",
        "rosbags>=0.11,<0.12",
        "safetensors>=0.4",
        "cryptography>=41",
        "tensorboardX>=2.6",
        "torch>=2.4",
        "tqdm>=4.66",
        "transforms3d>=0.4.2",
    ],
    # The velocity-limited tasks; everything else does without.
    extras_require={"mujoco": ["gymnasium[mujoco]>=1.4", "mujoco>=3.3,<4"]},
    entry_points={"console_scripts": ["ssql = ssql_ros.cli.main:main"]},
)

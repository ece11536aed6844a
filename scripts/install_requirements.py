"""Install a lock file into the environment of the Python that runs this, with a line of progress.

install_requirements.py LOCK [PIP OPTION ...]

pip is either silent or prints hundreds of lines; this shows how far it is, and all of pip's errors.
"""

import subprocess
import sys
from pathlib import Path


def main() -> int:
    """Run pip; return its exit status."""
    lock, *options = sys.argv[1:]
    total = sum(1 for line in Path(lock).read_text().splitlines() if line and not line.startswith("#"))
    command = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "--progress-bar", "off"]
    found, errors = 0, []
    with subprocess.Popen(
        [*command, *options, "-r", lock], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as pip:
        assert pip.stdout is not None
        for line in pip.stdout:
            words = line.split()
            # "Processing" stands for a package that comes from a file.
            if line.startswith(("Collecting ", "Processing ", "Requirement already satisfied: ")):
                found += 1
                show(f"{found} of {total}: {Path(words[3] if words[0] == 'Requirement' else words[1]).name}")
            elif line.startswith("  Downloading "):
                show(f"{found} of {total}: {' '.join(words[1:])}")
            elif line.startswith("Installing collected"):
                show(f"unpacking {total} packages")
            # What follows the first error explains it.
            if errors or line.startswith("ERROR:"):
                errors.append(line)
    show("")
    sys.stderr.writelines(errors)
    if pip.returncode:
        print(
            "error: pip could not install requirements.lock (see above): is the package index in reach?",
            file=sys.stderr,
        )
    return pip.returncode


def show(text: str) -> None:
    """Replace the line of progress; without a terminal, say nothing."""
    if sys.stdout.isatty():
        print(f"\r\x1b[K{text[:100]}", end="", flush=True)


if __name__ == "__main__":
    sys.exit(main())

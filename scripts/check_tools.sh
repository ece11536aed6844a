#!/bin/sh
# Is everything here that `make setup` needs? Prints the Python to use; otherwise says in one line
# what is missing and how to get it. Honours PYTHON, CC and CXX.
set -u

fail() {
    echo "error: $*" >&2
    exit 1
}

[ "$(uname -s) $(uname -m)" = "Linux x86_64" ] ||
    fail "the ROS 2 wheels exist for Linux x86_64 only, this is $(uname -s) $(uname -m): build in a colcon workspace instead (README.md)"

case $PWD in
*[[:space:]]*) fail "the path '$PWD' contains a space, which the build tools of ROS do not bear: move the repository" ;;
esac

# A command found by name may still not run (version managers install such stubs): try it.
is_cpython_311() {
    "$1" -c 'import sys
raise SystemExit(sys.version_info[:2] != (3, 11) or sys.implementation.name != "cpython")' >/dev/null 2>&1
}

if [ -n "${PYTHON:-}" ]; then
    is_cpython_311 "$PYTHON" ||
        fail "PYTHON=$PYTHON is not CPython 3.11 ($("$PYTHON" --version 2>&1 | head -n 1)): point PYTHON to one, as in 'make setup PYTHON=/usr/bin/python3.11'"
    python=$PYTHON
else
    python=
    for candidate in python3.11 python3 python; do
        if is_cpython_311 "$candidate"; then
            python=$candidate
            break
        fi
    done
    [ -n "$python" ] ||
        fail "no CPython 3.11 found (tried python3.11, python3, python): install it with 'sudo apt-get install python3.11 python3.11-venv python3.11-dev' (Debian 12) or 'uv python install 3.11' (elsewhere), or name it as in 'make setup PYTHON=/path/to/python3.11'"
fi

"$python" -c 'import ensurepip, venv' >/dev/null 2>&1 ||
    fail "$python cannot make virtual environments: install the module with 'sudo apt-get install python3.11-venv'"
"$python" -c 'import os, sysconfig
raise SystemExit(not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")))' ||
    fail "$python has no C headers (Python.h): install them with 'sudo apt-get install python3.11-dev'"
"$python" -c 'import platform
name, version = platform.libc_ver()
raise SystemExit(name != "glibc" or tuple(map(int, version.split(".")[:2])) < (2, 28))' ||
    fail "the ROS 2 wheels need glibc 2.28 or later, this is $("$python" -c 'import platform; print(*platform.libc_ver())'): use a distribution of 2019 or later"

# $1 variable, $2 its value, $3 what it names, $4 package, then the names to look for.
need_compiler() {
    variable=$1 value=$2 language=$3 package=$4
    shift 4
    if [ -n "$value" ]; then
        # The value may carry options or a prefix command: "ccache g++".
        command -v ${value%% *} >/dev/null 2>&1 ||
            fail "no $language compiler found: $variable=$value is not a command; correct or unset $variable"
        return
    fi
    for candidate in "$@"; do
        command -v "$candidate" >/dev/null 2>&1 && return
    done
    fail "no $language compiler found ($*): install one with 'sudo apt-get install $package'"
}
need_compiler CC "${CC:-}" C gcc gcc clang cc
need_compiler CXX "${CXX:-}" C++ g++ g++ clang++ c++

command -v cmake >/dev/null 2>&1 ||
    fail "no cmake found: install it (3.21 or later) with 'sudo apt-get install cmake' or 'pipx install cmake'"
version=$(cmake --version | sed -n 's/^cmake version \([0-9.]*\).*/\1/p')
major=${version%%.*} rest=${version#*.}
minor=${rest%%.*}
[ "${major:-0}" -gt 3 ] || { [ "${major:-0}" -eq 3 ] && [ "${minor:-0}" -ge 21 ]; } ||
    fail "cmake ${version:-of unknown version} is too old: install 3.21 or later with 'pipx install cmake'"

echo "$python"

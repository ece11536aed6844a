#!/bin/sh
# Build the package and install it into a virtual environment: build_package.sh PREFIX BUILD JOBS
# Quiet unless something fails: then the end of the log is shown.
set -eu
prefix=$1 build=$2 jobs=$3
mkdir -p "$build"
log=$build/build.log

{
    # A tree that was configured elsewhere, or that failed half-way, is not worth an attempt to mend.
    rm -rf "$build/tree"
    # make's variables would tie the inner make to the outer one's job server.
    env -u MAKEFLAGS -u MFLAGS -u MAKELEVEL AMENT_PREFIX_PATH="$prefix" CMAKE_PREFIX_PATH="$prefix" sh -eu -c '
        cmake -S . -B "$2/tree" -DCMAKE_INSTALL_PREFIX="$1" -DPython3_EXECUTABLE="$1/bin/python" \
            -DSSQL_ROS_VENV=ON -DBUILD_TESTING=OFF -DCMAKE_BUILD_TYPE=Release
        cmake --build "$2/tree" --parallel "$3"
        cmake --install "$2/tree"
    ' sh "$prefix" "$build" "$jobs"
} >"$log" 2>&1 || {
    status=$?
    tail -n 30 "$log" >&2
    echo "error: building the messages failed; the whole log is $log" >&2
    exit $status
}

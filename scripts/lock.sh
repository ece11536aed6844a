#!/bin/sh
# Write requirements.lock: every package at one version, for CPython 3.11 on Linux x86_64.
# lock.sh UV [OPTION ...]: with --upgrade every package at its newest version, with --upgrade-package NAME that one;
# without, what is locked stays where requirements.in still allows it.
# torch's GPU libraries are left out: a CPU build has none, and a GPU build names their exact
# versions itself, so that pip adds what the torch it finds needs.
set -eu
uv=$1
shift
new=$(mktemp)
trap 'rm -f "$new" "$new.all"' EXIT

# What is in the output file already is preferred.
cp requirements.lock "$new.all"
"$uv" pip compile requirements.in --quiet "$@" --python-version 3.11 \
    --python-platform x86_64-manylinux_2_28 --no-annotate --no-header --output-file "$new.all" >/dev/null
{
    echo "# Written by 'make lock' from requirements.in. CPython 3.11, Linux x86_64."
    grep -vE '^(nvidia-|cuda-|triton==)' "$new.all"
} >"$new"

# Untouched if nothing changed: a newer file makes `make setup` install everything again.
cmp -s "$new" requirements.lock || cp "$new" requirements.lock

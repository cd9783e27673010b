#!/usr/bin/env bash
# Makes .venv what constraints.txt and pyproject.toml say, or repairs it. Knows nothing of the code that will run in it.
#
#   whole?  the same Python, uv, and every file that the packages there recorded      no: afresh, in seconds from uv's cache
#   stamp?  written last; the sum of constraints.txt and pyproject.toml               no: install what differs
#
# A missing piece of the machine is one sentence that says what to install. Hosts of registries come from the
# configuration of pip and uv on this machine, never from here.
set -euo pipefail
cd "$(dirname "$0")/.."

python=${PYTHON:-python3}
venv=.venv
stamp=$venv/complete

fail() {
    echo "vidseq: $1" >&2
    exit 1
}

check_python() {
    command -v "$python" >/dev/null ||
        fail "there is no '$python' here: run 'make system', or install Python 3.11, 3.12 or 3.13."
    "$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null ||
        fail "'$python' is not Python 3.11, 3.12 or 3.13: name one that is, as in 'make test PYTHON=python3.12'."
    "$python" -c 'import ensurepip, venv' 2>/dev/null ||
        fail "'$python' has no venv module: run 'make system', or apt-get install $(basename "$python")-venv."
}

whole() {
    [[ "$("$venv/bin/python" -V 2>/dev/null)" == "$("$python" -V)" && -x $venv/bin/uv ]] &&
        "$venv/bin/python" -I scripts/whole.py
}

install_uv() {
    [[ "$("$venv/bin/uv" --version 2>/dev/null) " == "uv $(sed -n 's/^uv==\([^ ;]*\).*/\1/p' constraints.txt) "* ]] ||
        "$venv/bin/python" -m pip install --quiet --no-deps --require-hashes -r <(awk '/^uv==/,/[^\\]$/' constraints.txt)
}

install_packages() {
    local uv=("$venv/bin/uv" pip install --python "$venv/bin/python")
    [[ -t 2 ]] || uv+=(--quiet)
    "${uv[@]}" --require-hashes -r constraints.txt
    "${uv[@]}" --no-deps --no-build-isolation --editable .
}

check_python
scripts/system.sh check

exec 9<scripts/environment.sh # of two commands at once, the second waits for the first
flock 9

if ! whole; then
    [[ ! -e $venv ]] || echo "vidseq: $venv is damaged, unfinished or of another Python: making it afresh" >&2
    "$python" -m venv --clear "$venv"
fi

sum=$(cat constraints.txt pyproject.toml | sha256sum)
if [[ "$(cat "$stamp" 2>/dev/null)" != "$sum" ]]; then
    rm -f "$stamp"
    echo "vidseq: installing what constraints.txt names into $venv (3 GB to download, once for each machine)" >&2
    install_uv
    install_packages
    echo "$sum" >"$stamp"
fi

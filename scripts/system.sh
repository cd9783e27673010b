#!/usr/bin/env bash
# What vidseq and its tests need of the machine itself. Knows nothing of Python packages.
#
#   scripts/system.sh check      one sentence and exit 1 where a library is missing
#   scripts/system.sh install    brings what is missing, what only tests need included, with apt-get; does nothing
#                                where nothing is
set -euo pipefail

python=${PYTHON:-python3}

# The library that OpenCV's wheel loads, and Debian's package of it.
declare -A package_of=(
    [libGL.so.1]=libgl1
    [libglib-2.0.so.0]=libglib2.0-0
    [libxcb.so.1]=libxcb1
)

# Programs that tests start, and Debian's packages of them; without one its tests are skipped. (Where there is systemd,
# those of Redis and PostgreSQL also start a server on the loopback, which no test uses.)
declare -A package_of_program=(
    [haproxy]=haproxy
    [postgres]=postgresql
    [redis-server]=redis-server
    [strace]=strace
)
PATH=$PATH:/usr/sbin:$(printf '%s:' /usr/lib/postgresql/*/bin) # where Debian puts them, and not everybody looks

missing_libraries() {
    "$python" -c '
import ctypes, sys
for library in sys.argv[1:]:
    try:
        ctypes.CDLL(library)
    except OSError:
        print(library)
' "${!package_of[@]}" | while read -r library; do echo "${package_of[$library]}"; done | sort
}

missing_programs() {
    local program
    for program in "${!package_of_program[@]}"; do
        command -v "$program" >/dev/null || echo "${package_of_program[$program]}"
    done
}

missing_packages() {
    missing_programs
    if ! command -v "$python" >/dev/null; then
        echo "$(basename "$python") $(basename "$python")-venv ${package_of[*]}"
        return
    fi
    "$python" -c 'import ensurepip, venv' 2>/dev/null || echo "$(basename "$python")-venv"
    missing_libraries
}

fail() {
    echo "vidseq: $1" >&2
    exit 1
}

check() {
    local missing
    missing=$(missing_libraries | xargs)
    [[ -z $missing ]] || fail "OpenCV's system libraries are missing: run 'make system', or apt-get install $missing."
}

install() {
    local missing as_root=(env DEBIAN_FRONTEND=noninteractive)
    missing=$(missing_packages | xargs)
    [[ -n $missing ]] || { echo "vidseq: nothing is missing on this machine"; return; }
    command -v apt-get >/dev/null || fail "there is no apt-get here: install by hand what Debian calls $missing."
    if ((EUID != 0)); then
        command -v sudo >/dev/null || fail "root is needed: apt-get install $missing."
        as_root=(sudo "${as_root[@]}")
    fi
    echo "vidseq: apt-get install $missing" >&2
    "${as_root[@]}" apt-get update --quiet=2
    # From Debian 13 on, libglib2.0-0 is a name that libglib2.0-0t64 provides: apt-get takes it all the same.
    # shellcheck disable=SC2086  # a list of names
    "${as_root[@]}" apt-get install --yes --quiet=2 --no-install-recommends -o DPkg::Lock::Timeout=120 $missing
}

case "${1:-}" in
check) check ;;
install) install ;;
*) fail "usage: scripts/system.sh check | install" ;;
esac

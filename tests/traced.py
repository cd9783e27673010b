"""What a program and all that it starts open: files and sockets, as strace saw it. Knows nothing of videos."""

import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.require import missing, need

CALLS = "open,openat,openat2,creat,execve,execveat,open_by_handle_at,socket,connect,bind,listen,prctl,seccomp"
_CALL = re.compile(r"^(\w+)\((.*)\)\s+= (-?\d+)")
_PATH = re.compile(r'"((?:[^"\\]|\\.)*)"')
_FILES = frozenset({"open", "openat", "openat2", "creat", "execve", "execveat", "open_by_handle_at"})
_SOCKETS = frozenset({"socket", "connect", "bind", "listen"})


@dataclass(frozen=True)
class Process:
    """Each call as (name, arguments, what it returned), in order. `confined`: it has taken a filter upon itself."""

    calls: list[tuple[str, str, int]]

    @property
    def confined(self) -> bool:
        return any(name == "prctl" and "PR_SET_SECCOMP" in told and result == 0 for name, told, result in self.calls)

    def opened(self) -> list[str]:
        """Every file that it opened, by the name that it said."""
        granted = [told for name, told, result in self.calls if name in _FILES and result >= 0]
        return [match[1] if (match := _PATH.search(told)) else told for told in granted]

    def sockets(self, family: str = "") -> list[str]:
        return [told for name, told, result in self.calls if name in _SOCKETS and result >= 0 and family in told]

    def refused(self) -> int:
        """How many files and sockets it asked for in vain."""
        return sum(name in _FILES | _SOCKETS and result < 0 for name, _, result in self.calls)


def need_strace() -> str:
    """The path of strace, where it may trace."""
    strace = need("strace")
    if subprocess.run([strace, "-o", "/dev/null", "true"], capture_output=True, check=False).returncode:
        missing("strace", "strace may not trace here")
    return strace


def traced(command: Sequence[str | Path], folder: Path, *, strace: str, cwd: Path) -> list[Process]:
    """Runs the command to its end. `folder` takes what was seen, a file for each process."""
    folder.mkdir()
    told = ["-f", "-ff", "-qq", "-s", "4096", "-e", f"trace={CALLS}", "-e", "signal=none", "-o", str(folder / "seen")]
    subprocess.run([strace, *told, *command], cwd=cwd, check=True)
    return [_process(path) for path in sorted(folder.iterdir())]


def _process(path: Path) -> Process:
    found = [_CALL.match(line) for line in path.read_text(errors="replace").splitlines()]
    return Process([(match[1], match[2], int(match[3])) for match in found if match])

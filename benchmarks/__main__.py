"""`make bench`: every benchmark after the other, each a table. Some need the real clips beside the project."""

import subprocess
import sys
from pathlib import Path

DATA = Path("../shared/data")
COMMANDS = (
    ["benchmarks.memory"],
    ["benchmarks.decode"],
    ["benchmarks.http"],
    ["benchmarks.batch"],
    ["benchmarks.training", str(DATA / "fight")],
    ["benchmarks.odd", str(DATA / "odd")],
)


def main() -> None:
    if not DATA.is_dir():
        print(f"there are no clips in {DATA}: only what needs none is measured", file=sys.stderr)
    for command in COMMANDS if DATA.is_dir() else COMMANDS[:1]:
        print(f"\n## python -m {' '.join(command)}\n", flush=True)
        subprocess.run([sys.executable, "-m", *command], check=True)


if __name__ == "__main__":
    main()

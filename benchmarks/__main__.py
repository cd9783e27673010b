"""`make bench`: speed, memory and odd files, each a table; `make bench ARGS='memory batch'` for some of them.

Some need the real clips beside the project. benchmarks.accuracy is not among them: it measures models, not code.
"""

import subprocess
import sys
from pathlib import Path

DATA = Path("../shared/data")
# These draw what they need.
MADE: dict[str, list[str]] = {
    "sandbox": [],
    "hostile": [],
    "fuzz": ["--seconds", "60"],
    "memory": [],
    "batch": [],
    "batch_kill": ["--clips", "100", "--kills", "4"],
    "batch_features": [],
    "batch_heads": [],
    "heads": [],
    "cells": [],
    "two_orders": [],
    "long_dependency": ["--quick"],
    "streams": [],
    "first_label": [],
    "day": [],
    "kill": [],
    "rollout": [],
    "resume": [],
    "long_video": [],
    "half_open": [],
    "overload": [],
    "once": [],
    "jobs": [],
    "upload": [],
    "soak": ["--minutes", "5", "--warm-up", "1"],
}
REAL: dict[str, list[str]] = {
    "decode": [],
    "over_http": [],
    "training": [str(DATA / "fight")],
    "odd": [str(DATA / "odd")],
    "early": [str(DATA / "yoga"), "--group-by", "subject", "--folds", "4"],
}


def main() -> None:
    available = MADE | REAL if DATA.is_dir() else MADE
    unknown = [name for name in sys.argv[1:] if name not in MADE | REAL]
    if unknown:
        sys.exit(f"there is no benchmark {unknown[0]!r}: choose from {', '.join(MADE | REAL)}")
    for name in sys.argv[1:] or MADE | REAL:
        if name not in available:
            print(f"\n{name} is left out: there are no clips in {DATA}", file=sys.stderr)
            continue
        command = ["-m", f"benchmarks.{name}", *available[name]]
        print(f"\n## python {' '.join(command)}\n", flush=True)
        subprocess.run([sys.executable, *command], check=True)


if __name__ == "__main__":
    main()

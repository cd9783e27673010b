"""Is this interpreter's environment whole? Exits 1 and names what is not. Knows nothing of what should be installed.

Reads what each installed package recorded of its own files (RECORD: path, hash, size) and looks whether they are there
in that size. Hashes would take a minute; an interrupted install or a deleted folder shows in a quarter of a second.
"""

import csv
import sys
from collections.abc import Iterator
from pathlib import Path
from sysconfig import get_path


def damaged_files(site_packages: Path) -> Iterator[Path]:
    """The files that are missing or of another size than recorded; a package without its record counts as a whole."""
    for package in site_packages.glob("*.dist-info"):
        record = package / "RECORD"
        if not record.is_file() or not (package / "METADATA").is_file():
            yield package
            continue
        with record.open(newline="", encoding="utf-8") as lines:
            for name, _hash, size in csv.reader(lines):
                path = site_packages / name
                if "__pycache__" not in name and not intact(path, size):
                    yield path


def intact(path: Path, size: str) -> bool:
    """`size` is empty where the installer recorded none."""
    try:
        return size in ("", str(path.stat().st_size))
    except OSError:
        return False


if __name__ == "__main__":
    damaged = next(damaged_files(Path(get_path("purelib"))), None)
    sys.exit(0 if damaged is None else f"not whole: {damaged}")

"""What vidseq makes of each file of a folder of odd clips, beside what is expected: a markdown table.

    python benchmarks/odd.py ../shared/data/odd

The folder holds `expected.json`: a list of {file, status, frames, ...}, as another decoder (PyAV) found them.
"""

import argparse
import json
from pathlib import Path

from vidseq.config import Picture, Sampling
from vidseq.errors import VidseqError
from vidseq.sampling import sample
from vidseq.video import Reader


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    print("| file | expected | frames | vidseq: decoded | complete | sampled | error or warning |")
    print("|---|---|---|---|---|---|---|")
    for entry in json.loads((folder / "expected.json").read_text()):
        cells = [entry["file"], entry["status"], entry.get("frames", "-"), *outcome(folder / entry["file"])]
        print(f"| {' | '.join(str(cell) for cell in cells)} |", flush=True)


def outcome(path: Path) -> tuple[object, ...]:
    """Decoded frames, whether that is all, sampled frames at 8 a second, and what was said about it."""
    try:
        with Reader(path, picture=Picture()) as reader:
            num_sampled = sum(len(clip) for clip in sample(reader, Sampling()))
            report = reader.report()
    except VidseqError as error:
        return "-", "-", "-", f"`{error.code}`: {error}"
    return report.frames_decoded, "yes" if report.complete else "**no**", num_sampled, "; ".join(report.warnings)


if __name__ == "__main__":
    main()

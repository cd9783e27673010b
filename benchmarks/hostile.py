"""The corpus of hostile files: what came of them, what they reached and what they cost, as tables.

    python -m benchmarks.hostile

Asked about twice: once traced with strace, for what is opened; once alone, for seconds and memory. What the files are
stands in tests/hostile_files.py; a clip of the real ones is cut short among them where there are any.
"""

import json
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from tests.hostile_files import LABELLED, NEIGHBOURS, Hostile, make_corpus
from tests.hostile_run import CAP_BYTES, LIMITS, SAMPLING, Run, read_run
from tests.toy_models import toy_checkpoint
from tests.traced import Process, need_strace, traced

MEGABYTE = 1 << 20
DATA = Path("../shared/data")


def main() -> None:
    strace = need_strace()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        real = sorted(DATA.glob("fight/*/*.mp4"))[:1]
        # Port 9 discards: nobody listens there, and what is tried is seen by strace. tests/test_hostile.py listens.
        corpus = make_corpus(folder / "files", port=9, real=real[0] if real else None)
        model = toy_checkpoint(folder / "model", sampling=SAMPLING)
        (folder / "corpus").write_text(json.dumps([each.path for each in corpus]))
        told = [sys.executable, "-m", "tests.hostile_run", model, folder / "corpus", folder / "answers"]
        processes = traced(told, folder / "trace", strace=strace, cwd=Path.cwd())
        subprocess.run(told, check=True)
        run = read_run(folder / "answers")
        print(by_kind(corpus, run), reached(corpus, processes), costs(corpus, run), sep="\n\n")


def by_kind(corpus: list[Hostile], run: Run) -> str:
    """The outcomes of each kind, the most frequent first, and the labels that should not have been given."""
    rows = ["| kind | files | outcomes | labels though unreadable |", "|---|---|---|---|"]
    answers = list(zip(corpus, run.answers, strict=True))
    for kind in [*dict.fromkeys(each.kind for each in corpus), "all"]:
        found = [(each, answer) for each, answer in answers if kind in ("all", each.kind)]
        outcomes = Counter(answer.outcome for _, answer in found)
        wrong = sum(answer.outcome == LABELLED and not each.readable for each, answer in found)
        told = ", ".join(f"{outcome.removeprefix('video/')} {count}" for outcome, count in outcomes.most_common())
        rows.append(f"| {kind} | {len(found)} | {told} | {wrong} |")
    return "\n".join(rows)


def reached(corpus: list[Hostile], processes: list[Process]) -> str:
    decoders = [process for process in processes if process.confined]
    folder = str(Path(corpus[0].path or "").parents[1])
    neighbours = f"{folder}/{NEIGHBOURS}/"
    rows = {
        "decoders traced": len(decoders),
        "files opened by a decoder": sum(len(process.opened()) for process in decoders),
        "sockets opened by a decoder": sum(len(process.sockets()) for process in decoders),
        "files and sockets asked for by a decoder, and refused": sum(process.refused() for process in decoders),
        "neighbours opened by anybody": sum(
            path.startswith(neighbours) for process in processes for path in process.opened()
        ),
        "sockets of the internet opened by anybody": sum(len(process.sockets("AF_INET")) for process in processes),
    }
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())])


def costs(corpus: list[Hostile], run: Run) -> str:
    longest = sorted(zip(run.answers, corpus, strict=True), key=lambda pair: -pair[0].seconds)[:3]
    told = ", ".join(f"{answer.seconds:.1f} ({each.name})" for answer, each in longest)
    return "\n".join(
        [
            "| | found | limit |",
            "|---|---|---|",
            f"| longest, seconds | {told} | {LIMITS.max_decode_seconds:g} |",
            f"| peak memory of a process, MiB | {run.peak_bytes / MEGABYTE:,.0f} | {CAP_BYTES / MEGABYTE:,.0f} |",
            f"| descriptors, children left | {run.descriptors_left}, {run.children_left} | 0, 0 |",
        ]
    )


if __name__ == "__main__":
    main()

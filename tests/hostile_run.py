"""`python -m tests.hostile_run MODEL CORPUS ANSWERS`: asks a classifier, as the service does, about each hostile file.

A process of its own, so that it can be traced as a whole, and the memory of its children told from anybody else's.
CORPUS is a JSON list of paths; ANSWERS becomes a `Run`.
"""

import json
import os
import resource
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tests.hostile_files import LABELLED
from vidseq.classifier import Classifier
from vidseq.config import Limits, Sampling
from vidseq.errors import VidseqError
from vidseq.sandbox.box import Sandbox
from vidseq.sandbox.protocol import NUM_SLOTS

# The product's own, but for time and number of frames: somebody waits for this.
LIMITS = Limits(max_decode_seconds=10, max_stall_seconds=5, max_frames=20_000)
# A frame in four seconds: what takes time is to decode.
SAMPLING = Sampling(frames_per_second=0.25)
# What is more than all that a child may have: its limit, and the pictures that it shares with its caller.
CAP_BYTES = LIMITS.max_decoder_bytes + NUM_SLOTS * 3 * LIMITS.max_pixels


@dataclass(frozen=True)
class Answer:
    """`outcome` is LABELLED or the code of an error, `detail` its sentence. The rest is of what was labelled."""

    outcome: str
    seconds: float
    detail: str = ""
    height: int = 0
    width: int = 0
    frames_decoded: int = 0
    complete: bool = False
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Run:
    """`peak_bytes`: the most that any process of the sandbox had in memory. The rest is what was there afterwards and
    not before."""

    answers: list[Answer]
    peak_bytes: int
    descriptors_left: int
    children_left: int


def ask(classifier: Classifier, path: str) -> Answer:
    began = time.monotonic()
    try:
        video = classifier.classify(path).video
    except VidseqError as error:
        return Answer(error.code, time.monotonic() - began, str(error))
    return Answer(
        LABELLED,
        time.monotonic() - began,
        height=video.height,
        width=video.width,
        frames_decoded=video.frames_decoded,
        complete=video.complete,
        warnings=list(video.warnings),
    )


def children(pid: int | None) -> int:
    return len(Path(f"/proc/{pid}/task/{pid}/children").read_text().split())


def run(model: Path, paths: list[str]) -> Run:
    with Sandbox() as sandbox:
        classifier = Classifier.load(model, limits=LIMITS, sandbox=sandbox)
        sandbox.prove(LIMITS)
        before = len(os.listdir("/proc/self/fd"))
        answers = [ask(classifier, path) for path in paths]
        descriptors_left = len(os.listdir("/proc/self/fd")) - before
        until = time.monotonic() + 20
        while (left := children(sandbox.server_pid)) and time.monotonic() < until:
            time.sleep(0.05)
    # Of all that were waited for, by the server or here.
    peak_kibibytes = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return Run(answers, 1024 * peak_kibibytes, descriptors_left, left)


def main() -> None:
    model, corpus, answers = map(Path, sys.argv[1:])
    found = run(model, json.loads(corpus.read_text()))
    answers.write_text(json.dumps(asdict(found)))


def read_run(path: Path) -> Run:
    told = json.loads(path.read_text())
    return Run(**told | {"answers": [Answer(**answer) for answer in told["answers"]]})


if __name__ == "__main__":
    main()

"""Mutants of clips, decoded as the service decodes them, until there are enough: what came of them, as a table.

    python -m benchmarks.fuzz [--mutants 20000] [--seconds 600] [--seed 1]     whichever of the first two comes first
    python -m benchmarks.fuzz --seed 1 --only 4711 --keep mutant.mp4           one of them, again

Counted, and what must be 0 (else the exit status is 1):

    crashes     the fork server ended, or whoever asked it met an error that is none of ours
    silent      an answer with `complete` and no warning, though fewer frames than declared came, and the time from the
                first of them to the end of the last is shorter than declared by more than 5 % and 0.1 s: both are
                computed here from the timestamps that came, not taken from the report
    leftovers   files (it goes to a folder of its own, which is also the one for temporary files), descriptors, children

A decoder that crashes is contained, and is counted beside. Clips are the real ones beside the project, else toys.
"""

import argparse
import os
import secrets
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.mutants import mutant
from tests.toy_videos import write_clip
from vidseq.config import Limits, Picture, Sampling
from vidseq.errors import VidseqError
from vidseq.sampling import sample
from vidseq.sandbox.box import Sandbox
from vidseq.schemas import VideoReport
from vidseq.video import Foreseeing, Frame, Reader, Verdict

DATA = Path("../shared/data")
LIMITS = Limits(max_decode_seconds=10, max_stall_seconds=5, max_frames=20_000)
MOST_CLIP_BYTES = 400_000  # of real ones: more mutants in the same time
PICTURE, SAMPLING = Picture(size=64), Sampling()
ANSWERED = "answered"
GONE_SECONDS = 20.0


@dataclass(frozen=True)
class Place:
    """What there is of what must not be left: files where this was started, and what descriptors are of."""

    files: frozenset[str]
    descriptors: Counter[str]

    @classmethod
    def now(cls) -> "Place":
        return cls(frozenset(os.listdir()), Counter(_descriptors()))

    def left_since(self, before: "Place") -> list[str]:
        left = [f"a file: {name}" for name in sorted(self.files - before.files)]
        if self.descriptors.total() > before.descriptors.total():
            left += [f"a descriptor of {name}" for name in (self.descriptors - before.descriptors).elements()]
        return left


def _descriptors() -> Iterator[str]:
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # the one that lists them
            yield os.readlink(descriptor)


@dataclass
class Found:
    """What came of the mutants; of what must not be, the numbers of the mutants that did it."""

    outcomes: Counter[str] = field(default_factory=Counter)
    complete: int = 0
    fewer: list[int] = field(default_factory=list)  # complete, no warning, and fewer frames than before the change
    crashes: list[int] = field(default_factory=list)
    silent: list[int] = field(default_factory=list)
    decoder_crashes: list[int] = field(default_factory=list)
    leftovers: list[str] = field(default_factory=list)
    longest_seconds: float = 0.0
    seconds: float = 0.0

    @property
    def num(self) -> int:
        return self.outcomes.total()

    @property
    def is_clean(self) -> bool:
        return not (self.crashes or self.silent or self.leftovers)


class Watched:
    """A Reader as `sample` sees it; `seconds` are the times of all frames that came."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self.seconds: list[float] = []

    def frames(self, want: Foreseeing) -> Iterator[Frame]:
        watched = self

        class Want:
            @property
            def not_before(self) -> float:
                return want.not_before

            def __call__(self, seconds: float) -> Verdict:
                watched.seconds.append(seconds)
                return want(seconds)

        return self._reader.frames(Want())


def decode(video: bytes, sandbox: Sandbox) -> tuple[VideoReport, list[float]]:
    """As Classifier.classify does it, but for the model. Raises what that raises."""
    with Reader(video, picture=PICTURE, limits=LIMITS, sandbox=sandbox) as reader:
        watched = Watched(reader)
        for _ in sample(watched, SAMPLING):
            pass
        reader.refuse_truncated(start_seconds=0.0, end_seconds=None)
        return reader.report(), watched.seconds


def is_silent(report: VideoReport, seconds: Sequence[float]) -> bool:
    """Whether less came than the file declares, and nobody says so."""
    declared_seconds, declared_frames = report.duration_seconds, report.frames_declared
    if declared_seconds is None or declared_frames is None or not report.complete or report.warnings:
        return False
    rising = sorted(set(seconds))
    a_frame = (rising[-1] - rising[0]) / (len(rising) - 1) if len(rising) > 1 else declared_seconds / declared_frames
    seen_seconds = rising[-1] + a_frame
    missing_seconds = declared_seconds - seen_seconds
    return len(seconds) < declared_frames and missing_seconds > max(0.05 * declared_seconds, 0.1) + 1e-6


def clips(folder: Path) -> list[bytes]:
    """Real ones, the shortest of each kind, where there are any; else toys of every container."""
    real = [*sorted(DATA.glob("fight/*/*.mp4"))[::8], *sorted(DATA.glob("odd/*.*"))]
    found = [path.read_bytes() for path in real if path.suffix in (".mp4", ".mkv", ".webm", ".avi", ".ts")]
    found = [data for data in found if 0 < len(data) < MOST_CLIP_BYTES]
    return found or toys(folder)


def toys(folder: Path) -> list[bytes]:
    made = [
        write_clip(folder / "a.mp4", num_frames=40),
        write_clip(folder / "b.mp4", num_frames=40, muxing={"movflags": "faststart"}),
        write_clip(folder / "c.mp4", num_frames=40, muxing={"movflags": "frag_keyframe+empty_moov+default_base_moof"}),
        write_clip(folder / "d.mkv", num_frames=40),
        write_clip(folder / "e.webm", num_frames=40, codec="libvpx"),
        write_clip(folder / "f.avi", num_frames=40, codec="mpeg4"),
        write_clip(folder / "g.ts", num_frames=40),
        write_clip(folder / "h.avi", num_frames=40, codec="mjpeg"),
    ]
    data = [path.read_bytes() for path in made]
    for path in made:
        path.unlink()
    return data


def sound(videos: Sequence[bytes], sandbox: Sandbox) -> tuple[list[bytes], list[int]]:
    """Those that can be answered as they are, and how many frames each has: what is changed was good."""
    kept, num_frames = [], []
    for video in videos:
        try:
            report, _ = decode(video, sandbox)
        except VidseqError:
            continue
        kept.append(video)
        num_frames.append(report.frames_decoded)
    return kept, num_frames


def fuzz(videos: Sequence[bytes], *, seed: int, most: int, seconds: float) -> Found:
    """Until there are `most` mutants, or `seconds` have passed. Nobody else is to work in this process and folder."""
    found = Found()
    with Sandbox() as sandbox:
        videos, num_frames = sound(videos, sandbox)
        server = sandbox.server_pid
        before, began = Place.now(), time.monotonic()
        while found.num < most and time.monotonic() - began < seconds:
            number = found.num
            made = mutant(videos, seed=seed, number=number)
            _try(made.data, number, found, sandbox=sandbox, num_frames=num_frames[made.clip])
            if sandbox.server_pid != server or not Path(f"/proc/{server}").exists():
                found.crashes.append(number)
                server = sandbox.server_pid
        found.seconds = time.monotonic() - began
        found.leftovers = Place.now().left_since(before) + _children_left(server)
    return found


def _try(video: bytes, number: int, found: Found, *, sandbox: Sandbox, num_frames: int) -> None:
    began = time.monotonic()
    try:
        report, seconds = decode(video, sandbox)
    except VidseqError as error:
        found.outcomes[error.code] += 1
        if error.code == "video/decoder-crashed":
            found.decoder_crashes.append(number)
    except Exception as error:
        print(f"mutant {number}: {type(error).__name__}: {error}", file=sys.stderr)
        found.outcomes[type(error).__name__] += 1
        found.crashes.append(number)
    else:
        found.outcomes[ANSWERED] += 1
        if report.complete and not report.warnings:
            found.complete += 1
            found.fewer += [number] * (report.frames_decoded < num_frames)
        if is_silent(report, seconds):
            found.silent.append(number)
    found.longest_seconds = max(found.longest_seconds, time.monotonic() - began)


def _children_left(server: int | None) -> list[str]:
    until = time.monotonic() + GONE_SECONDS
    children = Path(f"/proc/{server}/task/{server}/children")
    while (running := children.read_text().split()) and time.monotonic() < until:
        time.sleep(0.05)
    return [f"a child: {pid}" for pid in running]


def table(found: Found) -> str:
    rows: list[tuple[str, object]] = [
        ("mutants", f"{found.num:,} in {found.seconds:,.0f} s"),
        ("the service crashed", len(found.crashes)),
        ("silent short reads", len(found.silent)),
        ("files, descriptors, processes left over", len(found.leftovers)),
        ("a decoder crashed, contained", len(found.decoder_crashes)),
        ("longest, seconds", f"{found.longest_seconds:.1f} of at most {LIMITS.max_decode_seconds:g}"),
        ("answered", f"{found.outcomes[ANSWERED]:,}, {found.complete:,} of them complete and without a warning"),
        ("of these, with fewer frames than before the change, but as much time as is declared", len(found.fewer)),
    ]
    errors = [(code, count) for code, count in found.outcomes.most_common() if code != ANSWERED]
    rows += [(f"`{code}`", f"{count:,}") for code, count in errors]
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows)])


def told(found: Found, seed: int) -> str:
    """What went wrong, or might have, and how to make it again."""
    wrong = {"crashed": found.crashes, "silent": found.silent, "decoder crashed": found.decoder_crashes}
    wrong["fewer frames, but as much time as is declared"] = found.fewer
    lines = [f"{name}: --seed {seed} --only {number}" for name, numbers in wrong.items() for number in numbers[:20]]
    return "\n".join([*lines, *found.leftovers])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mutants", type=int, default=20_000)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(1 << 32))
    parser.add_argument("--only", type=int, metavar="NUMBER", help="this mutant alone")
    parser.add_argument("--keep", type=Path, metavar="FILE", help="write it there")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        videos = clips(Path(folder))
        if asked.only is not None:
            again(videos, seed=asked.seed, number=asked.only, keep=asked.keep)
            return
        os.chdir(folder)
        tempfile.tempdir = os.environ["TMPDIR"] = folder
        print(f"seed {asked.seed}, {len(videos)} clips", flush=True)
        found = fuzz(videos, seed=asked.seed, most=asked.mutants, seconds=asked.seconds)
    print(f"\n{table(found)}\n{told(found, asked.seed)}")
    sys.exit(not found.is_clean)


def again(videos: Sequence[bytes], *, seed: int, number: int, keep: Path | None) -> None:
    with Sandbox() as sandbox:
        made = mutant(sound(videos, sandbox)[0], seed=seed, number=number)
        print(f"{len(made.data):,} bytes: {made.done}")
        if keep is not None:
            keep.write_bytes(made.data)
        try:
            report, seconds = decode(made.data, sandbox)
        except VidseqError as error:
            print(f"{error.code}: {error}")
        else:
            print(f"{report}\nsilent: {is_silent(report, seconds)}")


if __name__ == "__main__":
    main()

"""What the sandbox costs: CPU time of a clip decoded in this process and in a confined child, paired, in one run.

    python -m benchmarks.sandbox [--rounds 9] [--pictures]

The clips are drawn: a texture that drifts, H.264, 25 frames a second; 8 frames a second are sampled and fitted to 224
pixels. CPU-milliseconds over all processes, medians of interleaved rounds, with the median of the ratios of each pair;
wall-clock beside it. A server that is started costs its CPU time once. With `--pictures`, instead, pictures as a stream
pushes them, a hundred of one owner after the other, the start of his process counted in.
"""

import argparse
import io
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from tests.toy_videos import write_frames
from vidseq.config import Limits, Picture, Sampling
from vidseq.memory import keep_freed_memory
from vidseq.pictures import FORMATS, decode_picture
from vidseq.sampling import sample
from vidseq.sandbox.box import Sandbox
from vidseq.sandbox.picture_box import PictureBoxes
from vidseq.video import Reader

PICTURE = Picture(size=224)
FRAMES_PER_SECOND = 25
NUM_PICTURES = 100
KINDS = {  # seconds, width, height, clips in a round: enough for a clock that ticks 100 times a second
    "1 s, 320 x 240": (1, 320, 240, 40),
    "10 s, 320 x 240": (10, 320, 240, 8),
    "60 s, 320 x 240": (60, 320, 240, 2),
    "10 s, 1280 x 720": (10, 1280, 720, 2),
}
SAMPLINGS = {"8 fps": Sampling(frames_per_second=8), "every frame": Sampling(frames_per_second="native")}


@dataclass(frozen=True)
class Spent:
    cpu_seconds: float
    wall_seconds: float


def draw(path: Path, *, seconds: int, width: int, height: int) -> Path:
    """A texture that drifts, so that there is motion to decode."""
    noise = np.random.default_rng(0).integers(0, 256, (height + 256, width + 256, 3), dtype=np.uint8)
    texture = cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 3), None, 0, 255, cv2.NORM_MINMAX)
    times = [index / FRAMES_PER_SECOND for index in range(seconds * FRAMES_PER_SECOND)]
    corners = [(round(128 + 120 * np.sin(at)), round(128 + 120 * np.cos(0.7 * at))) for at in times]
    frames = [np.ascontiguousarray(texture[top : top + height, left : left + width]) for top, left in corners]
    return write_frames(path, frames, times, frames_per_second=FRAMES_PER_SECOND)


def server_seconds(pid: int) -> float:
    """CPU time of the fork server and of all children it has waited for."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def cpu_seconds(sandbox: Sandbox) -> float:
    own = resource.getrusage(resource.RUSAGE_SELF)
    assert sandbox.server_pid is not None
    return own.ru_utime + own.ru_stime + server_seconds(sandbox.server_pid)


def await_children(sandbox: Sandbox) -> None:
    """What they cost is known once they have been waited for."""
    pid = sandbox.server_pid
    while Path(f"/proc/{pid}/task/{pid}/children").read_text():
        time.sleep(0.001)


def measured(work: Callable[[], None], *, times: int, sandbox: Sandbox) -> Spent:
    """Of what is worked on `times` times, on average."""
    cpu, wall = cpu_seconds(sandbox), time.perf_counter()
    work()
    wall = time.perf_counter() - wall
    await_children(sandbox)
    return Spent((cpu_seconds(sandbox) - cpu) / times, wall / times)


def decode_clip(clip: Path, sampling: Sampling, *, times: int, sandbox: Sandbox | None) -> None:
    for _ in range(times):
        with Reader(clip, picture=PICTURE, sandbox=sandbox) as reader:
            for _ in sample(reader, sampling):
                pass


def decode_pictures(data: bytes, *, sandbox: Sandbox | None) -> None:
    if sandbox is None:
        for _ in range(NUM_PICTURES):
            decode_picture(data, max_pixels=Limits().max_pixels)
        return
    boxes = PictureBoxes(lambda: sandbox.pictures(Limits()))
    for _ in range(NUM_PICTURES):
        with boxes.of("somebody") as decode:
            decode(data)
    boxes.close()


def row(pairs: Sequence[tuple[Spent, Spent]]) -> str:
    here, boxed = (statistics.median(pair[side].cpu_seconds for pair in pairs) for side in (0, 1))
    ratio = statistics.median(boxed.cpu_seconds / here.cpu_seconds for here, boxed in pairs)
    walls = [statistics.median(pair[side].wall_seconds for pair in pairs) for side in (0, 1)]
    words = [f"{1000 * number:.1f}" for number in (here, boxed)] + [f"{ratio:.2f}"]
    return " | ".join([*words, *(f"{1000 * number:.1f}" for number in walls)])


def clips(rounds: int, sandbox: Sandbox) -> None:
    print("| clip | sampled | CPU-ms here | boxed | ratio | ms here | boxed |\n|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for kind, (seconds, width, height, times) in KINDS.items():
            clip = draw(Path(folder) / "clip.mp4", seconds=seconds, width=width, height=height)
            for name, sampling in SAMPLINGS.items():
                work = partial(decode_clip, clip, sampling, times=times)
                print(f"| {kind} | {name} | {row(paired(work, rounds, times=times, sandbox=sandbox))} |", flush=True)


def pictures(rounds: int, sandbox: Sandbox) -> None:
    keep_freed_memory()  # as a service does
    print("| picture | format | CPU-ms here | boxed | ratio | ms here | boxed |\n|---|---|---|---|---|---|---|")
    for width, height in ((320, 240), (640, 480), (1280, 720)):
        noise = np.random.default_rng(0).integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
        drawn = Image.fromarray(noise).resize((width, height))
        for form in FORMATS:
            file = io.BytesIO()
            drawn.save(file, form)
            pairs = paired(partial(decode_pictures, file.getvalue()), rounds, times=NUM_PICTURES, sandbox=sandbox)
            print(f"| {width} x {height} | {form} | {row(pairs)} |", flush=True)


def paired(work: Callable[..., None], rounds: int, *, times: int, sandbox: Sandbox) -> list[tuple[Spent, Spent]]:
    def spent(box: Sandbox | None) -> Spent:
        return measured(partial(work, sandbox=box), times=times, sandbox=sandbox)

    return [(spent(None), spent(sandbox)) for _ in range(rounds)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--pictures", action="store_true")
    options = parser.parse_args()
    with Sandbox() as sandbox:
        began = time.perf_counter()
        print(sandbox.prove(Limits()).in_words())
        print(f"ready after {time.perf_counter() - began:.2f} s\n")
        (pictures if options.pictures else clips)(options.rounds, sandbox)


if __name__ == "__main__":
    main()

"""Decode, sample and resize: vidseq beside a plain OpenCV script, PyAV and torchcodec doing the same work, in one run.

    python benchmarks/decode.py [CLIP ...] [--num-clips 12] [--rounds 5]

Every way decodes all frames with one thread, converts the same few to RGB, and cuts and resizes them to the same
square. CPU-seconds over all threads, medians of interleaved rounds: believe the ratios. Prints a markdown table.
"""

import argparse
import importlib.util
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import av
import cv2
import numpy as np
import numpy.typing as npt

from vidseq.config import Picture, Sampling
from vidseq.sampling import advance, sample
from vidseq.video import Reader, Verdict

Pixels = npt.NDArray[np.uint8]
Way = Callable[[Path, list[int]], list[Pixels]]

PICTURE = Picture(size=224)
SAMPLING = Sampling(frames_per_second=8)
REAL_CLIPS = Path(__file__).resolve().parents[2] / "shared" / "data" / "fight"
LENT = "VIDSEQ_BENCHMARK_LENT_FFMPEG"


def with_vidseq(path: Path, indices: list[int]) -> list[Pixels]:
    with Reader(path, picture=PICTURE) as reader:
        return [pixels_HWC for clip in sample(reader, SAMPLING) for pixels_HWC in clip.pixels_THWC]


def with_opencv(path: Path, indices: list[int]) -> list[Pixels]:
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    wanted, index, pictures = set(indices), 0, []
    while capture.grab():
        if index in wanted:
            pixels_HWC = capture.retrieve()[1]
            pictures.append(cv2.cvtColor(cut_and_resize(pixels_HWC), cv2.COLOR_BGR2RGB))
        index += 1
    capture.release()
    return pictures


def with_pyav(path: Path, indices: list[int]) -> list[Pixels]:
    wanted = set(indices)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type, stream.codec_context.thread_count = "NONE", 1
        frames = enumerate(container.decode(stream))
        return [cut_and_resize(frame.to_ndarray(format="rgb24")) for index, frame in frames if index in wanted]


def with_torchcodec(path: Path, indices: list[int]) -> list[Pixels]:
    from torchcodec.decoders import VideoDecoder

    decoder = VideoDecoder(path, num_ffmpeg_threads=1, seek_mode="approximate", dimension_order="NHWC")
    pictures = []
    for first in range(0, len(indices), 16):
        frames_THWC = decoder.get_frames_at(indices[first : first + 16]).data.numpy()
        pictures += [cut_and_resize(pixels_HWC) for pixels_HWC in frames_THWC]
    return pictures


def cut_and_resize(pixels_HWC: Pixels) -> Pixels:
    height, width, _ = pixels_HWC.shape
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square_HWC = pixels_HWC[top : top + side, left : left + side]
    interpolation = cv2.INTER_AREA if side > PICTURE.size else cv2.INTER_LINEAR
    return cv2.resize(square_HWC, (PICTURE.size, PICTURE.size), interpolation=interpolation)


def sampled_indices(path: Path) -> list[int]:
    """The numbers of the frames that vidseq samples, for the others to take the same."""
    seconds: list[float] = []

    def note(at_seconds: float) -> Verdict:
        seconds.append(at_seconds)
        return Verdict.SKIP

    with Reader(path, picture=PICTURE) as reader:
        list(reader.frames(note))
    clock, indices = None, []
    for index, at_seconds in enumerate(seconds):
        sampled, clock = advance(clock, at_seconds, SAMPLING)
        indices += [index] * sampled
    return indices


def cpu_seconds() -> float:
    """Of this process with all its threads, and of its children."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def measure(ways: dict[str, Way], clips: list[Path], rounds: int) -> dict[str, list[float]]:
    """CPU-seconds for all clips, a round each; the first round warms up and is not counted."""
    indices = {clip: sampled_indices(clip) for clip in clips}
    spent: dict[str, list[float]] = {name: [] for name in ways}
    for counted in [False] + [True] * rounds:
        totals = dict.fromkeys(ways, 0.0)
        for clip in clips:
            for name, way in ways.items():
                before = cpu_seconds()
                pictures = way(clip, indices[clip])
                totals[name] += cpu_seconds() - before
                assert len(pictures) == len(indices[clip]), f"{name} took {len(pictures)} frames of {clip}"
        for name, total in totals.items():
            spent[name] += [total] * counted
    return spent


def run_with_ffmpeg_lent_by_pyav() -> int:
    """torchcodec's wheel brings no FFmpeg and finds one by name alone: PyAV's, under the names it looks for."""
    spec = importlib.util.find_spec("av")
    assert spec is not None and spec.origin is not None
    libraries = Path(spec.origin).parents[1] / "av.libs"
    with tempfile.TemporaryDirectory() as folder:
        for library in libraries.glob("lib[as][vw]*-*.so.*"):
            name, version = library.name.split("-")[0], library.name.split(".so.")[1].split(".")[0]
            (Path(folder) / f"{name}.so.{version}").symlink_to(library)
        environment = {**os.environ, LENT: "1", "LD_LIBRARY_PATH": f"{folder}:{libraries}"}
        return subprocess.run([sys.executable, *sys.argv], env=environment).returncode


def why_torchcodec_cannot_run(path: Path) -> str | None:
    try:
        with_torchcodec(path, [0])
    except (RuntimeError, ImportError) as error:
        return str(error).strip().splitlines()[0]
    return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", type=Path, nargs="*", help="default: ../shared/data/fight/*/*.mp4")
    parser.add_argument("--num-clips", type=int, default=12, help="take so many of them, evenly spread")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    clips = sorted(arguments.clips or REAL_CLIPS.glob("*/*.mp4"))
    clips = clips[:: max(1, len(clips) // arguments.num_clips)][: arguments.num_clips]
    ways: dict[str, Way] = {"plain OpenCV script": with_opencv, "vidseq": with_vidseq, "PyAV": with_pyav}
    refusal = why_torchcodec_cannot_run(clips[0])
    if refusal is None:
        ways["torchcodec (approximate)"] = with_torchcodec
    spent = measure(ways, clips, arguments.rounds)
    plain = spent["plain OpenCV script"]
    print(f"{len(clips)} clips, median of {arguments.rounds} rounds\n")
    print("| | CPU-s | ratio to plain OpenCV | lowest to highest ratio |\n|---|---|---|---|")
    for name, seconds in spent.items():
        ratios = sorted(own / other for own, other in zip(seconds, plain, strict=True))
        median = statistics.median(ratios)
        print(f"| {name} | {statistics.median(seconds):.3f} | {median:.2f} | {ratios[0]:.2f} to {ratios[-1]:.2f} |")
    if refusal is not None:
        print(f"| torchcodec | - | - | cannot run here: {refusal} |")


if __name__ == "__main__":
    if LENT not in os.environ:
        sys.exit(run_with_ffmpeg_lent_by_pyav())
    main()

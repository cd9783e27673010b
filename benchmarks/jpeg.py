"""What pictures cost that are sent as JPEG: labels that change, scores that move, and bytes, against raw RGB.

    python -m benchmarks.jpeg MODEL CLIPS [--clips 20]

Sampled frames of real clips go through the same model in one process, as raw RGB and as JPEG of three qualities.
"""

import argparse
import asyncio
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import torch

from vidseq.checkpoint import load_checkpoint
from vidseq.config import Limits, Sampling
from vidseq.decoder import Pixels
from vidseq.engine import Engine
from vidseq.live import Live
from vidseq.messages import Encoded, FrameHeader, StreamOptions
from vidseq.sampling import advance
from vidseq.schemas import Moment
from vidseq.video import Reader, Verdict

QUALITIES = (95, 85, 70)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("clips", type=Path)
    parser.add_argument("--clips", dest="num_clips", type=int, default=20)
    options = parser.parse_args()
    torch.set_num_threads(1)
    paths = sorted(options.clips.glob("**/*.mp4"))
    paths = paths[:: max(1, len(paths) // options.num_clips)][: options.num_clips]
    asyncio.run(_compare(options.model, paths))


async def _compare(model: Path, paths: Sequence[Path]) -> None:
    checkpoint = load_checkpoint(model)
    told: dict[int | None, list[Moment]] = {quality: [] for quality in (None, *QUALITIES)}
    num_bytes = dict.fromkeys(told, 0)
    with Engine(checkpoint.model) as engine, ThreadPoolExecutor(1) as decoders:
        live = Live(checkpoint, advance=engine.advance, decoders=decoders, limits=Limits())
        for path in paths:
            frames = list(_sampled(path, live))
            for quality in told:
                pictures = [_encoded(pixels_HWC, seconds, quality) for pixels_HWC, seconds in frames]
                num_bytes[quality] += sum(picture.header.bytes for picture in pictures)
                born = time.perf_counter()
                applied, _ = await live.push(live.start(), pictures, options=StreamOptions(), born_seconds=born)
                told[quality] += applied.labels
    print("| | bytes of raw | labels that change | mean change of a score | largest |\n|---|---|---|---|---|")
    for quality in QUALITIES:
        pairs = [(one.frame, other.frame) for one, other in zip(told[None], told[quality], strict=True)]
        moved = np.array([abs(one.score - other.score) for one, other in pairs if one and other])
        changed = np.mean([one.label != other.label for one, other in pairs if one and other])
        share = num_bytes[quality] / num_bytes[None]
        print(f"| JPEG {quality} | {share:.1%} | {changed:.1%} | {moved.mean():.4f} | {moved.max():.3f} |")
    print(f"\n{len(paths)} clips, {len(told[None])} frames")


def _sampled(path: Path, live: Live) -> Iterator[tuple[Pixels, float]]:
    """Sampled frames in blue, green, red, at their own size."""
    sampling: Sampling = live.config.sampling
    with Reader(path, picture=live.config.picture) as reader:
        clock = None

        def want(seconds: float) -> Verdict:
            nonlocal clock
            sampled, clock = advance(clock, seconds, sampling)
            return Verdict.TAKE if sampled else Verdict.SKIP

        yield from reader.pictures(want)


def _encoded(pixels_HWC: Pixels, seconds: float, quality: int | None) -> Encoded:
    height, width, _ = pixels_HWC.shape
    if quality is None:
        data = cv2.cvtColor(pixels_HWC, cv2.COLOR_BGR2RGB).tobytes()
        return Encoded(FrameHeader(seconds=seconds, format="rgb", bytes=len(data), width=width, height=height), data)
    data = cv2.imencode(".jpg", pixels_HWC, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()
    return Encoded(FrameHeader(seconds=seconds, format="jpeg", bytes=len(data)), data)


if __name__ == "__main__":
    main()

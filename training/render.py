"""Rendered clips: a shape in motion, with labels that only the order of its frames can tell. Knows nothing of models.

Every scene is filmed once and written twice, forwards and backwards:

    forwards    still | open ............... | still | close | still          its action: open
    backwards   still | open | still | close ............... | still          its action: close

The two clips hold the very same frames. One frame, or a mean over frames, tells that it is a flower, but not whether it
opened or closed: a model whose memory does not work is right half the time. The action is the longest of the motions.
"""

import argparse
import colorsys
import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from vidseq.errors import OptionError

# Shapes in the names: N points of an outline, H rows, W columns, C or RGB colour channels, T frames.
Pixels = NDArray[np.uint8]
Colour = tuple[float, float, float]  # RGB, 0 to 1

STILL = "still"
MOTIONS = {"disc": ("grow", "shrink"), "flower": ("open", "close"), "square": ("brighten", "darken")}
NIGHT_RGB = np.array((0.05, 0.05, 0.15), np.float32)
OUTLINE_POINTS = 180
SUBPIXEL_BITS = 4  # a slow motion must not jump from pixel to pixel


@dataclass(frozen=True)
class Beat:
    """A stretch of a scene in which its one quantity (size, petals, daylight) goes from `start` to `end`, 0 to 1."""

    num_frames: int
    start: float
    end: float

    def label(self, shape: str) -> str:
        rising, falling = MOTIONS[shape]
        return STILL if self.start == self.end else rising if self.start < self.end else falling

    def reversed(self) -> "Beat":
        return Beat(self.num_frames, self.end, self.start)


@dataclass(frozen=True)
class Scene:
    """What a shape does, and all that stays the same meanwhile; lengths are shares of the picture's side."""

    shape: str
    beats: tuple[Beat, ...]
    shape_colour: Colour
    sky_colours: tuple[Colour, Colour]  # above, below
    centre_xy: tuple[float, float]
    radius: float
    num_petals: int
    tilt_radians: float

    @property
    def action(self) -> str:
        """The label of the longest motion."""
        motions = [beat for beat in self.beats if beat.start != beat.end]
        return max(motions, key=lambda beat: beat.num_frames).label(self.shape)

    def reversed(self) -> "Scene":
        return replace(self, beats=tuple(beat.reversed() for beat in reversed(self.beats)))


def render_clips(
    folder: Path, *, num_clips: int, seed: int, picture_size: int = 160, frames_per_second: int = 12
) -> None:
    """Write clips.csv (path, label, scene), segments.csv and `num_clips` clips of about 3 s in MP4 into `folder`.

    The same seed gives the same clips. Split them by the column `scene`, or a clip's mirror image is on the other side.
    OptionError for a number out of its range.
    """
    for name, value, lowest in (
        ("num_clips", num_clips, 1),
        ("seed", seed, 0),
        ("picture_size", picture_size, 32),
        ("frames_per_second", frames_per_second, 4),
    ):
        if value < lowest:
            raise OptionError(f"{name} is {value}; at least {lowest} is needed")
    (folder / "clips").mkdir(parents=True, exist_ok=True)
    clip_rows, segment_rows = [], []
    for number in range(num_clips):
        scene_number, backwards = divmod(number, 2)
        rng = np.random.default_rng([seed, scene_number])  # a scene is the same however many others there are
        shape = tuple(MOTIONS)[scene_number % len(MOTIONS)]
        scene = invent_scene(rng, shape=shape, frames_per_second=frames_per_second)
        frames = film(scene, rng, picture_size=picture_size)
        if backwards:
            scene, frames = scene.reversed(), frames[::-1]
        path = f"clips/scene{scene_number:03}_{'backwards' if backwards else 'forwards'}.mp4"
        _write_video(folder / path, frames, frames_per_second=frames_per_second)
        clip_rows.append((path, scene.action, f"scene{scene_number:03}"))
        for start_seconds, end_seconds, label in _segments(scene, frames_per_second=frames_per_second):
            segment_rows.append((path, f"{start_seconds:.3f}", f"{end_seconds:.3f}", label))
    _write_table(folder / "clips.csv", header=("path", "label", "scene"), rows=clip_rows)
    _write_table(folder / "segments.csv", header=("path", "start_seconds", "end_seconds", "label"), rows=segment_rows)


def invent_scene(rng: np.random.Generator, *, shape: str, frames_per_second: int) -> Scene:
    """A scene at random: a long motion, then a short one about half of the way back, with rests around them."""

    def num_frames(low_seconds: float, high_seconds: float) -> int:
        return max(1, round(float(rng.uniform(low_seconds, high_seconds)) * frames_per_second))

    def sky_colour(low_brightness: float, high_brightness: float) -> Colour:
        sky_hue = (hue + rng.uniform(0.3, 0.7)) % 1  # away from the shape's
        return colorsys.hsv_to_rgb(sky_hue, rng.uniform(0.1, 0.5), rng.uniform(low_brightness, high_brightness))

    start = float(rng.integers(2))
    turn, end = 1 - start, float(rng.uniform(0.4, 0.6))
    hue = float(rng.random())
    return Scene(
        shape=shape,
        beats=(
            Beat(num_frames(0.25, 0.5), start, start),
            Beat(num_frames(1.1, 1.5), start, turn),
            Beat(num_frames(0.25, 0.5), turn, turn),
            Beat(num_frames(0.3, 0.5), turn, end),
            Beat(num_frames(0.25, 0.5), end, end),
        ),
        shape_colour=colorsys.hsv_to_rgb(hue, 0.8, 1.0),
        sky_colours=(sky_colour(0.5, 0.9), sky_colour(0.3, 0.7)),
        centre_xy=(float(rng.uniform(0.46, 0.54)), float(rng.uniform(0.46, 0.54))),
        radius=float(rng.uniform(0.38, 0.43)),
        num_petals=int(rng.integers(5, 7)),
        tilt_radians=float(rng.uniform(-0.2, 0.2)),
    )


def film(scene: Scene, rng: np.random.Generator, *, picture_size: int) -> list[Pixels]:
    """The frames of a scene, forwards: (picture_size, picture_size, 3) uint8 BGR, as OpenCV writes them."""
    # Without a motion's two ends, which belong to the rests: its first frame has moved, forwards and backwards.
    values_T = np.concatenate([np.linspace(beat.start, beat.end, beat.num_frames + 2)[1:-1] for beat in scene.beats])
    return [_paint(scene, float(value), rng, picture_size=picture_size) for value in values_T]


def _paint(scene: Scene, value: float, rng: np.random.Generator, *, picture_size: int) -> Pixels:
    down_H11 = np.linspace(0, 1, picture_size, dtype=np.float32)[:, None, None]
    above_RGB, below_RGB = (np.array(colour, np.float32) for colour in scene.sky_colours)
    sky_HWC = np.repeat(above_RGB * (1 - down_H11) + below_RGB * down_H11, picture_size, axis=1)
    daylight = value if scene.shape == "square" else 1.0
    canvas_HWC = NIGHT_RGB + (sky_HWC - NIGHT_RGB) * daylight
    outline_N2 = np.round(_outline(scene, value) * picture_size * 2**SUBPIXEL_BITS).astype(np.int32)
    cv2.fillPoly(canvas_HWC, [outline_N2], scene.shape_colour, cv2.LINE_8, SUBPIXEL_BITS)
    canvas_HWC += rng.normal(0, 0.01, canvas_HWC.shape)
    pixels_HWC: Pixels = np.clip(canvas_HWC[:, :, ::-1] * 255, 0, 255).astype(np.uint8)
    return pixels_HWC


def _outline(scene: Scene, value: float) -> NDArray[np.float64]:
    """The points (N, 2) around the shape, x before y, as shares of the picture's side."""
    turn_N = np.linspace(0, 2 * np.pi, OUTLINE_POINTS, endpoint=False)
    if scene.shape == "disc":
        reach_N = np.full_like(turn_N, 0.25 + 0.75 * value)
    elif scene.shape == "flower":
        reach_N = 1 - 0.4 * value * (1 + np.cos(scene.num_petals * turn_N))
    else:
        reach_N = 0.7 / np.maximum(np.abs(np.cos(turn_N)), np.abs(np.sin(turn_N)))
    direction_N2 = np.stack([np.cos(turn_N + scene.tilt_radians), np.sin(turn_N + scene.tilt_radians)], axis=1)
    outline_N2: NDArray[np.float64] = np.array(scene.centre_xy) + scene.radius * reach_N[:, None] * direction_N2
    return outline_N2


def _segments(scene: Scene, *, frames_per_second: int) -> Iterator[tuple[float, float, str]]:
    """(start_seconds, end_seconds, label) of each beat, half-open, rounded down to milliseconds.

    Rounded to the nearest, an interval could begin just after its own first frame.
    """
    num_frames = 0
    for beat in scene.beats:
        start_seconds = num_frames * 1000 // frames_per_second / 1000
        num_frames += beat.num_frames
        yield start_seconds, num_frames * 1000 // frames_per_second / 1000, beat.label(scene.shape)


def _write_video(path: Path, frames: Sequence[Pixels], *, frames_per_second: int) -> None:
    """MPEG-4 in MP4, which OpenCV's wheel can write (it cannot write H.264)."""
    height, width, _ = frames[0].shape
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), frames_per_second, (width, height))
    if not writer.isOpened():
        raise OptionError(f"cannot write a {width}x{height} video to {path}")
    for pixels_HWC in frames:
        writer.write(pixels_HWC)
    writer.release()


def _write_table(path: Path, *, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])


def main() -> None:
    """python -m training.render FOLDER --num-clips 72 --seed 0"""
    parser = argparse.ArgumentParser(prog="python -m training.render", description="Render labelled clips into FOLDER.")
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("--num-clips", type=int, default=72)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    try:
        render_clips(arguments.folder, num_clips=arguments.num_clips, seed=arguments.seed)
    except (OptionError, OSError) as error:
        parser.error(str(error))
    print(f"{arguments.num_clips} clips in {arguments.folder}; train on them with --group-by scene")


if __name__ == "__main__":
    main()

"""Rendered clips: one shape that changes, with labels that only the order of its frames can tell. Knows nothing of models.

A scene is filmed once and written twice, forwards and backwards:

    forwards    still | grow ................. | still | darken ... | still       its action: grow
    backwards   still | brighten | still | shrink ................. | still       its action: shrink

The two clips hold the very same frames. One frame, or a mean over frames, tells which pair of actions is shown but not
which of the two: a model whose memory does not work stays at one half. The action is the longest of the motions.
"""

import argparse
import colorsys
import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from vidseq.errors import OptionError

Pixels = NDArray[np.uint8]
Colour = tuple[float, float, float]  # RGB, 0 to 1

STILL = "still"
PAIRS = {"disc": ("grow", "shrink"), "flower": ("open", "close"), "square": ("brighten", "darken")}
ACTIONS = tuple(sorted(label for pair in PAIRS.values() for label in pair))


@dataclass(frozen=True)
class Beat:
    """A stretch of a scene in which its quantity goes from `start` to `end`, both 0 to 1."""

    num_frames: int
    start: float
    end: float

    def reverse(self) -> "Beat":
        return Beat(self.num_frames, self.end, self.start)

    def label(self, shape: str) -> str:
        rising, falling = PAIRS[shape]
        return STILL if self.start == self.end else rising if self.start < self.end else falling


@dataclass(frozen=True)
class Scene:
    """One of the shapes of `PAIRS`, what it does, and all that stays the same meanwhile."""

    shape: str
    beats: tuple[Beat, ...]
    shape_colour: Colour
    sky_colours: tuple[Colour, Colour]
    centre_xy: tuple[float, float]  # as a share of the picture, like the radius
    radius: float
    num_petals: int
    angle_radians: float


def invent_scene(rng: np.random.Generator, *, shape: str, frames_per_second: int) -> Scene:
    """A scene at random: a long motion, then a short one part of the way back, with rests around them."""

    def num_frames(low_seconds: float, high_seconds: float) -> int:
        return round(float(rng.uniform(low_seconds, high_seconds)) * frames_per_second)

    start = float(rng.integers(2))
    turn, end = 1 - start, abs(start - float(rng.uniform(0.4, 0.6)))
    beats = (
        Beat(num_frames(0.25, 0.5), start, start),
        Beat(num_frames(1.1, 1.5), start, turn),
        Beat(num_frames(0.25, 0.5), turn, turn),
        Beat(num_frames(0.3, 0.5), turn, end),
        Beat(num_frames(0.25, 0.5), end, end),
    )
    hue = float(rng.random())
    return Scene(
        shape=shape,
        beats=beats,
        shape_colour=colorsys.hsv_to_rgb(hue, 0.8, 1.0),
        sky_colours=(
            colorsys.hsv_to_rgb((hue + rng.uniform(0.3, 0.7)) % 1, rng.uniform(0.1, 0.5), rng.uniform(0.5, 0.9)),
            colorsys.hsv_to_rgb((hue + rng.uniform(0.3, 0.7)) % 1, rng.uniform(0.1, 0.5), rng.uniform(0.3, 0.7)),
        ),
        centre_xy=(float(rng.uniform(0.42, 0.58)), float(rng.uniform(0.42, 0.58))),
        radius=float(rng.uniform(0.34, 0.42)),
        num_petals=int(rng.integers(4, 8)),
        angle_radians=float(rng.uniform(0, 2 * np.pi)),
    )


def film(scene: Scene, rng: np.random.Generator, *, picture_size: int) -> list[Pixels]:
    """The frames of a scene, forwards: (picture_size, picture_size, 3) uint8 BGR, as OpenCV writes them."""
    # without its two ends, which belong to the rests: the first frame of a motion has moved, forwards and backwards
    values = np.concatenate([np.linspace(beat.start, beat.end, beat.num_frames + 2)[1:-1] for beat in scene.beats])
    return [_paint(scene, float(value), rng, picture_size=picture_size) for value in values]


def _paint(scene: Scene, value: float, rng: np.random.Generator, *, picture_size: int) -> Pixels:
    light = value if scene.shape == "square" else 1.0
    night_RGB = np.array((0.05, 0.05, 0.15), np.float32)
    down_H11 = np.linspace(0, 1, picture_size, dtype=np.float32)[:, None, None]
    top_RGB, bottom_RGB = (np.array(colour, np.float32) for colour in scene.sky_colours)
    canvas_HWC = np.repeat(top_RGB * (1 - down_H11) + bottom_RGB * down_H11, picture_size, axis=1)
    canvas_HWC = night_RGB + (canvas_HWC - night_RGB) * light
    subpixels = 4  # fractional bits: a slow motion must not jump from pixel to pixel
    outline_N2 = np.round(_outline(scene, value) * picture_size * 2**subpixels).astype(np.int32)
    cv2.fillPoly(canvas_HWC, [outline_N2], scene.shape_colour, cv2.LINE_8, subpixels)
    canvas_HWC += rng.normal(0, 0.01, canvas_HWC.shape).astype(np.float32)
    return np.clip(canvas_HWC[:, :, ::-1] * 255, 0, 255).astype(np.uint8)


def _outline(scene: Scene, value: float) -> NDArray[np.float64]:
    """The shape's outline (N, 2) as shares of the picture, x before y."""
    turn_N = np.linspace(0, 2 * np.pi, 180, endpoint=False)
    if scene.shape == "disc":
        radius_N = np.full_like(turn_N, 0.25 + 0.75 * value)
    elif scene.shape == "flower":
        radius_N = 1 - 0.4 * value * (1 + np.cos(scene.num_petals * turn_N))
    else:
        radius_N = 0.7 / np.maximum(np.abs(np.cos(turn_N)), np.abs(np.sin(turn_N)))
    direction_N2 = np.stack([np.cos(turn_N + scene.angle_radians), np.sin(turn_N + scene.angle_radians)], axis=1)
    return np.array(scene.centre_xy) + scene.radius * radius_N[:, None] * direction_N2


def _write_video(path: Path, frames: Sequence[Pixels], *, frames_per_second: int) -> None:
    """MPEG-4 in MP4: OpenCV's own wheel can write it (it cannot write H.264)."""
    height, width, _ = frames[0].shape
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), frames_per_second, (width, height))
    if not writer.isOpened():
        raise OptionError(f"cannot write a video to {path}")
    for pixels_HWC in frames:
        writer.write(pixels_HWC)
    writer.release()


def render_clips(
    folder: Path, *, num_clips: int, seed: int, picture_size: int = 192, frames_per_second: int = 12
) -> None:
    """Write clips.csv (path, label, scene), segments.csv and the clips, about 3 s each. The same seed gives the same clips.

    Split them by the column `scene`: the two directions of a scene must not be torn apart.
    """
    if num_clips < 1:
        raise OptionError(f"num_clips is {num_clips}; at least 1 is needed")
    (folder / "clips").mkdir(parents=True, exist_ok=True)
    clip_rows: list[tuple[str, str, str]] = []
    segment_rows: list[tuple[str, str, str, str]] = []
    for scene_number in range((num_clips + 1) // 2):
        rng = np.random.default_rng([seed, scene_number])  # a scene is the same however many follow it
        shape = tuple(PAIRS)[scene_number % len(PAIRS)]
        scene = invent_scene(rng, shape=shape, frames_per_second=frames_per_second)
        frames = film(scene, rng, picture_size=picture_size)
        takes = {
            "forwards": (frames, scene.beats),
            "backwards": (frames[::-1], tuple(beat.reverse() for beat in reversed(scene.beats))),
        }
        for direction, (take_frames, beats) in takes.items():
            if len(clip_rows) == num_clips:
                break
            path = f"clips/scene{scene_number:03}_{direction}.mp4"
            _write_video(folder / path, take_frames, frames_per_second=frames_per_second)
            action = max(beats, key=lambda beat: (beat.start != beat.end, beat.num_frames)).label(shape)
            clip_rows.append((path, action, f"scene{scene_number:03}"))
            num_frames = 0
            for beat in beats:
                start, end = (count / frames_per_second for count in (num_frames, num_frames + beat.num_frames))
                segment_rows.append((path, f"{start:.3f}", f"{end:.3f}", beat.label(shape)))
                num_frames += beat.num_frames
    _write_table(folder / "clips.csv", ("path", "label", "scene"), clip_rows)
    _write_table(folder / "segments.csv", ("path", "start_seconds", "end_seconds", "label"), segment_rows)


def _write_table(path: Path, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])

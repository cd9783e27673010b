"""Files that mean harm, each with what may come of it. Made here, by whoever wants them; none is kept.

    texts     a list that names other files and addresses, under a video's name
    names     paths that are more than a name: patterns, protocols, links, devices
    forms     containers and codecs that are not read, two forms in one, no picture, cut at twenty points
    encrypted in part, as their containers say in many ways
    boxes     containers whose boxes contradict themselves, each other or the file
    headers   fields that lie: counts, rates, durations, sizes
    bombs     little that becomes much

Beside them lie neighbours, clips of a size that no other has: whoever shows one has read what was not given.
"""

import dataclasses
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tests.toy_videos import write_clip

LABELLED = "labelled"
UNSUPPORTED, NO_VIDEO, CODEC = "video/unsupported-container", "video/no-video-stream", "video/unsupported-codec"
UNDECODABLE, TRUNCATED, EMPTY = "video/undecodable", "video/truncated", "video/empty"
NO_MEMORY, SLOW, NOT_FOUND = "video/out-of-memory", "video/too-slow", "source/not-found"
PIXELS, FRAMES, SECONDS = "video/too-many-pixels", "video/too-many-frames", "video/too-many-seconds"
DAMAGED = frozenset({UNDECODABLE, NO_VIDEO, TRUNCATED})

NEIGHBOUR_HEIGHT, NEIGHBOUR_WIDTH = 80, 208
NEIGHBOURS = "neighbours"  # the folder of them


@dataclass(frozen=True)
class Hostile:
    """One file, or with `path` one thing that is named in place of a file. `outcomes`: LABELLED, or codes of errors."""

    name: str
    kind: str
    outcomes: frozenset[str]
    data: bytes = b""
    path: str | None = None

    @property
    def readable(self) -> bool:
        return LABELLED in self.outcomes


def hostile(kind: str, name: str, data: bytes, *outcomes: str | frozenset[str]) -> Hostile:
    return Hostile(name, kind, _flat(outcomes), data)


def named(kind: str, name: str, path: str, *outcomes: str | frozenset[str]) -> Hostile:
    return Hostile(name, kind, _flat(outcomes), path=path)


def _flat(outcomes: Iterable[str | frozenset[str]]) -> frozenset[str]:
    return frozenset().union(*({each} if isinstance(each, str) else each for each in outcomes))


@dataclass(frozen=True)
class Sources:
    """What the makers start from: sound clips of 40 frames, 10 a second, as bytes; and where things lie and listen.

    `real` is a clip of the real ones, None where there are none.
    """

    folder: Path
    port: int
    mp4: bytes
    front_mp4: bytes
    fragmented_mp4: bytes
    mkv: bytes
    avi: bytes
    ts: bytes
    real: bytes | None

    @property
    def neighbours(self) -> Path:
        return self.folder / NEIGHBOURS


def make_sources(folder: Path, *, port: int, real: Path | None) -> Sources:
    """With the neighbours, and `port` of the loopback for addresses that somebody may connect to."""
    make_neighbours(folder)
    raw = folder / "raw"
    raw.mkdir()
    fragments = {"movflags": "frag_keyframe+empty_moov+default_base_moof"}
    sources = Sources(
        folder,
        port,
        mp4=write_clip(raw / "a.mp4", num_frames=40).read_bytes(),
        front_mp4=write_clip(raw / "b.mp4", num_frames=40, muxing={"movflags": "faststart"}).read_bytes(),
        fragmented_mp4=write_clip(raw / "c.mp4", num_frames=40, muxing=fragments).read_bytes(),
        mkv=write_clip(raw / "a.mkv", num_frames=40).read_bytes(),
        avi=write_clip(raw / "a.avi", codec="mpeg4", num_frames=40).read_bytes(),
        ts=write_clip(raw / "a.ts", num_frames=40).read_bytes(),
        real=real.read_bytes() if real is not None else None,
    )
    shutil.rmtree(raw)
    return sources


def make_neighbours(folder: Path) -> None:
    """Clips, pictures of a pattern, a text that is secret."""
    neighbours = folder / NEIGHBOURS
    neighbours.mkdir(parents=True)
    sizes = {"height": NEIGHBOUR_HEIGHT, "width": NEIGHBOUR_WIDTH}
    for name in ("clip.mp4", "clip.ts", "clip0.mp4", "clip1.mp4"):
        write_clip(neighbours / name, num_frames=40, **sizes)
    for number in range(3):
        write_clip(neighbours / f"frame{number}.mjpeg", codec="mjpeg", num_frames=1, **sizes).rename(
            neighbours / f"frame{number}.jpg"
        )
    (neighbours / "secret.txt").write_text("root:x:0:0: a secret of this machine\n")


def make_corpus(folder: Path, *, port: int, real: Path | None) -> list[Hostile]:
    """All of them, written to `folder`; each has its path."""
    from tests import (
        hostile_bombs,
        hostile_boxes,
        hostile_encrypted,
        hostile_forms,
        hostile_headers,
        hostile_names,
        hostile_texts,
    )

    sources = make_sources(folder, port=port, real=real)
    makers = (
        hostile_texts,
        hostile_names,
        hostile_forms,
        hostile_encrypted,
        hostile_boxes,
        hostile_headers,
        hostile_bombs,
    )
    return [_placed(each, folder) for maker in makers for each in maker.make(sources)]


def _placed(each: Hostile, folder: Path) -> Hostile:
    if each.path is not None:
        return each
    path = folder / each.kind / each.name
    path.parent.mkdir(exist_ok=True)
    assert not path.exists(), f"two are named {each.name}"
    path.write_bytes(each.data)
    return dataclasses.replace(each, path=str(path))

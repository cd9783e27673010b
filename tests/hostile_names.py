"""Paths that are more than a name to FFmpeg, or to the kernel: patterns, protocols, links, devices."""

import os
from collections.abc import Iterator

from tests.hostile_files import DAMAGED, EMPTY, LABELLED, NOT_FOUND, UNSUPPORTED, Hostile, Sources, hostile, named

KIND = "names"


def make(sources: Sources) -> Iterator[Hostile]:
    folder, here = sources.folder / KIND, sources.neighbours
    folder.mkdir()
    # Names of nothing that is here: to FFmpeg they would be pictures, protocols, devices.
    absent = {
        "a pattern": f"{here}/frame%d.jpg",
        "a pattern of clips": f"{here}/clip%01d.mp4",
        "a glob": f"{here}/frame*.jpg",
        "concat": f"concat:{here}/clip.ts|{here}/clip.ts",
        "file": f"file:{here}/clip.mp4",
        "subfile": f"subfile,,start,0,end,100000,,:{here}/clip.mp4",
        "async": f"async:file:{here}/clip.mp4",
        "cache": f"cache:file:{here}/clip.mp4",
        "crypto": f"crypto:{here}/clip.mp4",
        "http": f"http://127.0.0.1:{sources.port}/clip.mp4",
        "rtmp": f"rtmp://127.0.0.1:{sources.port}/clip",
        "udp": f"udp://127.0.0.1:{sources.port}",
        "tcp": f"tcp://127.0.0.1:{sources.port}",
        "pipe": "pipe:0",
        "descriptor": "fd:0",
        "data": "data:video/mp4;base64,AAAA",
        "a camera": "v4l2:/dev/video0",
        "a graph": f"lavfi:movie={here}/clip.mp4",
        "a zero byte": f"{here}/clip.mp4\0.mp4",
        "a long name": "a" * 5000 + ".mp4",
    }
    for name, path in absent.items():
        yield named(KIND, name, path, NOT_FOUND)
    # A file of such a name is a file, and is what is read.
    for name in ("frame%d.mp4", "concat:clip.mp4", "|true;clip.mp4", "-i"):
        yield hostile(KIND, name, sources.mp4, LABELLED)
    yield hostile(KIND, "clip%d.mp4", b"no video, but there are clip0.mp4 and clip1.mp4", UNSUPPORTED)
    yield from _links(sources)
    yield named(KIND, "a folder", str(here), NOT_FOUND)
    yield named(KIND, "a terminal", "/dev/tty", NOT_FOUND)
    yield named(KIND, "endless zeros", "/dev/zero", NOT_FOUND)
    yield named(KIND, "the environment", "/proc/self/environ", EMPTY)
    yield named(KIND, "memory", "/proc/self/mem", EMPTY, NOT_FOUND)
    os.mkfifo(folder / "fifo.mp4")
    yield named(KIND, "a fifo", str(folder / "fifo.mp4"), NOT_FOUND)


def _links(sources: Sources) -> Iterator[Hostile]:
    """A link is followed by whoever is told its name, once; what is found there is looked at as any file is."""
    folder = sources.folder / KIND
    targets = {
        "link-to-a-secret.mp4": (f"{sources.neighbours}/secret.txt", UNSUPPORTED),
        "link-to-a-device.mp4": ("/dev/zero", NOT_FOUND),
        "link-to-a-folder.mp4": (str(sources.neighbours), NOT_FOUND),
        "link-to-itself.mp4": ("link-to-itself.mp4", NOT_FOUND),
        "link-to-nothing.mp4": (f"{folder}/nothing.mp4", NOT_FOUND),
        "link-to-the-process.mp4": ("/proc/self/environ", EMPTY),
        "link-to-a-pattern.mp4": (f"{sources.neighbours}/frame%d.jpg", NOT_FOUND),
    }
    for name, (target, outcome) in targets.items():
        (folder / name).symlink_to(target)
        yield named(KIND, name, str(folder / name), outcome, DAMAGED if outcome == EMPTY else frozenset())

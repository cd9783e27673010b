"""vidseq.sandbox.box: decoders in processes of their own give the same pictures, and fail each for itself alone."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import get_args

import av
import numpy as np
import pytest

from tests.hostile_bombs import bomb
from tests.open_files import none_stays_open
from tests.require import missing
from tests.toy_videos import read, write_clip
from vidseq.config import Fit, Limits, Picture, Sampling
from vidseq.container import Source
from vidseq.errors import DecoderCrashed, OutOfMemory, TooSlow
from vidseq.incoming import Incoming
from vidseq.sampling import sample
from vidseq.sandbox.box import Sandbox
from vidseq.sandbox.confine import ALL
from vidseq.video import Frame, Reader, Verdict

PICTURE = Picture(size=64)
MEGABYTE = 1 << 20
GONE_SECONDS = 20.0


@pytest.fixture
def own() -> Iterator[Sandbox]:
    """A sandbox to be broken."""
    with Sandbox() as sandbox:
        yield sandbox


def everything(seconds: float) -> Verdict:
    return Verdict.TAKE


def numbers(source: Source | Incoming, sandbox: Sandbox, *, limits: Limits = Limits()) -> list[int]:
    with Reader(source, picture=PICTURE, limits=limits, sandbox=sandbox) as reader:
        return [read(frame.pixels_HWC) for frame in reader.frames(everything)]


def children(sandbox: Sandbox) -> list[int]:
    pid = sandbox.server_pid
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def await_true(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + GONE_SECONDS
    while not true():
        assert time.monotonic() < deadline, "it has not come true"
        time.sleep(0.01)


def is_gone(pid: int) -> bool:
    try:
        return "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True


# The same pictures


SAMPLINGS = [
    Sampling(frames_per_second=8),
    Sampling(frames_per_second=3.3, start_seconds=0.4, end_seconds=1.55),
    Sampling(frames_per_second="native"),
    Sampling(frames_per_second=1000),
    Sampling(frames_per_second=5, max_frames=4),
]


@pytest.mark.parametrize("sampling", SAMPLINGS, ids=str)
@pytest.mark.parametrize("fit", get_args(Fit))
def test_what_is_sampled_is_the_same_to_the_bit(sampling: Sampling, fit: str, sandbox: Sandbox, tmp_path: Path) -> None:
    picture = Picture.model_validate({"size": 48, "fit": fit})
    irregular = [0.0, 0.05, 0.3, 0.31, 0.4, 0.9, 1.2, 1.25, 1.5, 1.6]
    clips = [write_clip(tmp_path / "a.mp4", num_frames=45), write_clip(tmp_path / "b.mkv", seconds=irregular)]
    for clip in clips:
        found = []
        for box in (None, sandbox):
            with Reader(clip, picture=picture, sandbox=box) as reader:
                chunks = [(c.pixels_THWC.tobytes(), c.seconds_T.tobytes(), c.clock) for c in sample(reader, sampling)]
                found.append((chunks, reader.report(), reader.seen_until))
        assert found[0] == found[1]


def test_whole_pictures_are_the_same_to_the_bit(sandbox: Sandbox, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", height=90, width=122)
    found = []
    for box in (None, sandbox):
        with Reader(clip, picture=PICTURE, sandbox=box) as reader:
            found.append([(pixels_HWC.tobytes(), seconds) for pixels_HWC, seconds in reader.pictures(everything)])
    assert found[0] == found[1]


@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv422p", "yuv444p", "yuv420p10le", "gray", "yuvj420p"])
def test_large_pictures_of_any_pixel_format_are_the_same_to_the_bit(
    pixel_format: str, sandbox: Sandbox, tmp_path: Path
) -> None:
    """Where FFmpeg's scaler would take threads."""
    noise = np.random.default_rng(0).integers(0, 256, (135, 240, 3), dtype=np.uint8).repeat(8, axis=0).repeat(8, axis=1)
    with av.open(str(tmp_path / "clip.mkv"), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"preset": "ultrafast"})
        stream.height, stream.width, stream.pix_fmt = 1080, 1920, pixel_format
        for _ in range(3):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(noise, format="rgb24")))
        container.mux(stream.encode(None))
    found = []
    for box in (None, sandbox):
        with Reader(tmp_path / "clip.mkv", picture=PICTURE, sandbox=box) as reader:
            found.append([pixels_HWC.tobytes() for pixels_HWC, _ in reader.pictures(everything)])
            assert reader.report().warnings == ()
    assert found[0] == found[1] and len(found[0]) == 3


def test_many_threads_decode_at_once(own: Sandbox, tmp_path: Path) -> None:
    clips = [write_clip(tmp_path / f"{number}.mp4", num_frames=12, first_number=100 * number) for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda clip: numbers(clip, own), clips * 4))
    assert found == [list(range(100 * number, 100 * number + 12)) for number in range(8)] * 4
    await_true(lambda: children(own) == [])


# What arrives


async def receive(data: bytes, sandbox: Sandbox, *, limits: Limits, pause_seconds: float) -> list[int]:
    with Incoming(max_bytes=1 << 24) as incoming:
        answer = asyncio.create_task(asyncio.to_thread(numbers, incoming, sandbox, limits=limits))
        for start in range(0, len(data), 4096):
            await incoming.feed(data[start : start + 4096])
            await asyncio.sleep(pause_seconds if start == 4096 else 0)
        incoming.finish()
        return await answer


@pytest.mark.parametrize("name", ["clip.mkv", "clip.ts", "late.mp4"])
def test_what_arrives_is_decoded_and_a_sender_may_pause_for_longer_than_the_decoder_may(
    name: str, sandbox: Sandbox, tmp_path: Path
) -> None:
    data = write_clip(tmp_path / name, num_frames=100, height=256, width=256).read_bytes()
    limits = Limits(max_stall_seconds=1.0)
    assert asyncio.run(receive(data, sandbox, limits=limits, pause_seconds=1.6)) == list(range(100))


# What fails, fails alone


@contextlib.contextmanager
def begun(clip: Path, sandbox: Sandbox, *, limits: Limits = Limits()) -> Iterator[Iterator[Frame]]:
    """A clip of which the first frame was read, and more are to come."""
    with Reader(clip, picture=PICTURE, limits=limits, sandbox=sandbox) as reader:
        frames = reader.frames(everything)
        assert read(next(frames).pixels_HWC) == 0
        yield frames


@pytest.mark.parametrize(("number", "words"), [(signal.SIGSEGV, "SIGSEGV"), (signal.SIGKILL, "killed"), (6, "SIGABRT")])
def test_a_crash_costs_its_own_clip_a_typed_error_and_no_other(
    number: int, words: str, own: Sandbox, tmp_path: Path
) -> None:
    clip = write_clip(tmp_path / "clip.mp4", num_frames=12)
    with begun(clip, own) as other:
        (other_pid,) = children(own)
        with begun(clip, own) as frames:
            (pid,) = set(children(own)) - {other_pid}
            os.kill(pid, number)
            with pytest.raises(DecoderCrashed, match=words):
                list(frames)
        assert [read(frame.pixels_HWC) for frame in other] == list(range(1, 12))
    assert numbers(clip, own) == list(range(12))
    await_true(lambda: children(own) == [])


def test_a_decoder_that_says_nothing_for_too_long_is_killed(own: Sandbox, tmp_path: Path) -> None:
    with begun(write_clip(tmp_path / "clip.mp4"), own, limits=Limits(max_stall_seconds=3.0)) as frames:
        (pid,) = children(own)
        os.kill(pid, signal.SIGSTOP)
        with pytest.raises(TooSlow, match=r"longer than 3 seconds for one frame \(max_stall_seconds\)"):
            list(frames)
    await_true(lambda: children(own) == [])


def test_a_video_that_takes_longer_than_it_may_is_too_slow(sandbox: Sandbox, tmp_path: Path) -> None:
    part = write_clip(tmp_path / "part.ts", codec="mpeg2video", num_frames=10, height=1152, width=2048).read_bytes()
    with pytest.raises(TooSlow, match="max_decode_seconds"):
        numbers(part * 200, sandbox, limits=Limits(max_decode_seconds=0.5))


def test_a_bomb_costs_its_own_clip_a_typed_error_that_names_the_limit(sandbox: Sandbox, tmp_path: Path) -> None:
    clip = bomb(tmp_path / "bomb.avi", side=14_000)
    assert clip.stat().st_size < 8 * MEGABYTE
    with pytest.raises(OutOfMemory, match=r"more than 536,870,912 bytes of memory \(max_decoder_bytes\)"):
        numbers(clip, sandbox, limits=Limits(max_decoder_bytes=512 * MEGABYTE))


def test_after_the_server_is_killed_the_next_clip_has_a_new_one(own: Sandbox, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", num_frames=12)
    with begun(clip, own) as frames:
        first = own.server_pid
        assert first is not None
        (child,) = children(own)
        os.kill(first, signal.SIGKILL)
        await_true(lambda: is_gone(first) and is_gone(child))
        with pytest.raises(DecoderCrashed, match="its server"):
            list(frames)
    assert numbers(clip, own) == list(range(12))
    assert own.server_pid != first


def test_a_video_that_is_damaged_says_so_in_the_report(sandbox: Sandbox, tmp_path: Path) -> None:
    clip = bytearray(write_clip(tmp_path / "clip.mp4", num_frames=60).read_bytes())
    clip[clip.index(b"mdat") + 1000 :][:200] = bytes(range(200))
    damaged = bytes(clip[: clip.index(b"mdat") + 1000]) + bytes(range(200)) + bytes(clip[clip.index(b"mdat") + 1200 :])
    with Reader(damaged, picture=PICTURE, sandbox=sandbox) as reader:
        list(reader.frames(everything))
    assert any("the decoder complained" in warning for warning in reader.report().warnings)


# Nothing is left behind


def test_no_process_and_no_descriptor_stays_whether_it_goes_well_or_not(own: Sandbox, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4").read_bytes()
    numbers(clip, own)
    with none_stays_open():
        for source in (clip, clip[:2000], clip.replace(b"avc1", b"zzzz")):
            with contextlib.suppress(Exception), Reader(source, picture=PICTURE, sandbox=own) as reader:
                next(reader.frames(everything))
    await_true(lambda: children(own) == [])


def test_closing_ends_the_server_and_what_it_was_doing(tmp_path: Path) -> None:
    sandbox = Sandbox()
    with begun(write_clip(tmp_path / "clip.mp4"), sandbox):
        pids = [sandbox.server_pid, *children(sandbox)]
        sandbox.close()
        await_true(lambda: all(pid is not None and is_gone(pid) for pid in pids))
    assert sandbox.server_pid is None


BEGIN_AND_WAIT = """
import sys, time
from pathlib import Path
from vidseq.config import Picture
from vidseq.sandbox.box import Sandbox
from vidseq.video import Reader, Verdict
sandbox = Sandbox()
with Reader(sys.argv[1], picture=Picture(size=64), sandbox=sandbox) as reader:
    next(reader.frames(lambda seconds: Verdict.TAKE))
    pid = sandbox.server_pid
    print(pid, Path(f"/proc/{pid}/task/{pid}/children").read_text(), flush=True)
    time.sleep(60)
"""


def test_when_its_caller_is_killed_the_server_ends_and_every_decoder(tmp_path: Path) -> None:
    command = [sys.executable, "-c", BEGIN_AND_WAIT, write_clip(tmp_path / "clip.mp4")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as caller:
        assert caller.stdout is not None
        pids = [int(pid) for pid in caller.stdout.readline().split()]
        caller.kill()
    assert len(pids) == 2
    await_true(lambda: all(map(is_gone, pids)))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may look into a process that nobody else may look into")
def test_server_and_child_have_no_secret_and_no_descriptor_of_ours(
    own: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIDSEQ_TEST_SECRET", "a token of the service")
    with open(tmp_path / "secret", "w") as secret, begun(write_clip(tmp_path / "clip.mp4"), own):
        os.set_inheritable(secret.fileno(), True)
        numbers(tmp_path / "clip.mp4", own)
        (child,) = children(own)[:1]
        for pid in (own.server_pid, child):
            assert b"TOKEN" not in Path(f"/proc/{pid}/environ").read_bytes()
            assert {name.split(b"=")[0] for name in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0") if name} == {
                b"OPENBLAS_NUM_THREADS",
                b"OMP_NUM_THREADS",
                b"OPENCV_FFMPEG_LOGLEVEL",
                b"MALLOC_ARENA_MAX",
                b"MALLOC_MMAP_THRESHOLD_",
                b"MALLOC_TRIM_THRESHOLD_",
            }
        opened = [os.readlink(f"/proc/{child}/fd/{fd}") for fd in os.listdir(f"/proc/{child}/fd")]
    kinds = sorted({name.split(":")[0] for name in opened})
    assert kinds == sorted({"pipe", "socket", str(tmp_path / "clip.mp4")})


# Whether it can be trusted


def test_the_canary_clip_is_decoded_and_says_what_confines_it(sandbox: Sandbox) -> None:
    confinement = sandbox.prove(Limits())
    if confinement.missing:
        missing("sandbox", confinement.in_words())
    assert (confinement.layers, confinement.failure) == (ALL, None)
    assert "Landlock, seccomp" in confinement.in_words()


@pytest.mark.parametrize("num_bytes", [1, 300 * MEGABYTE])
def test_under_a_limit_that_is_too_tight_the_canary_clip_fails(num_bytes: int, sandbox: Sandbox) -> None:
    confinement = sandbox.prove(Limits(max_decoder_bytes=num_bytes))
    assert confinement.failure is not None
    assert "videos cannot be decoded here" in confinement.in_words()


def test_who_requires_the_sandbox_gets_it_where_the_kernel_offers_all(tmp_path: Path) -> None:
    with Sandbox(required=True) as sandbox:
        if missing_layers := sandbox.prove(Limits()).missing:
            missing("sandbox", str(missing_layers))
        assert numbers(write_clip(tmp_path / "clip.mp4", num_frames=5), sandbox) == list(range(5))


# A kernel that offers less, made by a filter that knows one system call not at all: create a Landlock ruleset.
OFFERS_LESS = """
import ctypes, errno, struct, sys
from vidseq.config import Limits, Picture
from vidseq.errors import SandboxError
from vidseq.sandbox.box import Sandbox
from vidseq.video import Reader, Verdict

code = b"".join(struct.pack("=HBBI", *op) for op in (
    (0x20, 0, 0, 0), (0x15, 0, 1, 444), (0x06, 0, 0, 0x50000 | errno.ENOSYS), (0x06, 0, 0, 0x7fff0000)))
class Program(ctypes.Structure):
    _fields_ = (("count", ctypes.c_ushort), ("code", ctypes.c_char_p))
libc = ctypes.CDLL(None)
assert libc.prctl(38, 1, 0, 0, 0) == 0 and libc.prctl(22, 2, ctypes.byref(Program(4, code)), 0, 0) == 0

def read_all(sandbox):
    with Reader(sys.argv[1], picture=Picture(size=64), sandbox=sandbox) as reader:
        return len(list(reader.frames(lambda seconds: Verdict.TAKE)))

print(Sandbox().prove(Limits()).in_words())
print(read_all(Sandbox()))
try:
    read_all(Sandbox(required=True))
except SandboxError as error:
    print(error)
"""


def test_where_the_kernel_offers_less_it_says_what_and_who_requires_all_is_refused(tmp_path: Path) -> None:
    command = [sys.executable, "-c", OFFERS_LESS, write_clip(tmp_path / "clip.mp4", num_frames=5)]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    confinement, num_frames, refusal = ended.stdout.splitlines()
    assert confinement.endswith("this kernel does not offer Landlock")
    assert num_frames == "5"
    assert refusal == "this kernel does not offer Landlock, and the whole sandbox is required"


def test_a_server_that_cannot_start_says_why() -> None:
    command = [sys.executable, "-c", "from vidseq.config import Limits\nfrom vidseq.sandbox.box import Sandbox\n"]
    command[-1] += "import sys\nsys.executable = sys.argv[1]\nprint(Sandbox().prove(Limits()).in_words())"
    ended = subprocess.run([*command, "/bin/false"], capture_output=True, text=True, check=True)
    assert "the decoders' server does not start" in ended.stdout

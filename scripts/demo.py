"""The whole path as a person walks it: clips -> train -> serve -> ask -> labels over time. Knows public doors only.

Run by `make demo`; `make demo CLIPS=folder` takes a person's own clips (see `vidseq train --help` for their form).
"""

import argparse
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from training.data.clips import LabelledClip, read_clips
from training.render import render_clips
from vidseq.client import Client
from vidseq.errors import DatasetError, VidseqError
from vidseq.timeline import draw, show

NUM_CLIPS = 96
STOP_SECONDS = 60


def main() -> None:
    parser = argparse.ArgumentParser(description="Train, serve and ask a model, start to end.")
    parser.add_argument("--out", type=Path, required=True, help="where the demo keeps what it makes")
    parser.add_argument("--clips", type=Path, help="your own labelled clips instead of rendered ones")
    parser.add_argument("--group-by", help="the column of your clips.csv whose clips belong together")
    arguments = parser.parse_args()
    if arguments.group_by and not arguments.clips:
        parser.error("the rendered clips have their groups: --group-by (GROUP_BY) is for clips of your own")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that the service is stopped as well
    try:
        demo(arguments.out, clips=arguments.clips, group_by=arguments.group_by)
    except VidseqError as error:
        sys.exit(f"vidseq: {error}")


def demo(out: Path, *, clips: Path | None, group_by: str | None) -> None:
    out.mkdir(parents=True, exist_ok=True)
    if clips is None:
        clips, options = out / "clips", ["--group-by", "scene", "--background", "still"]
        render(clips, unseen=out / "unseen")
        clip, note = read_clips(out / "unseen").clips[0], "not one of those that it was trained on"
    else:
        options = ["--group-by", group_by] if group_by else []
        clip, note = clip_to_ask_about(clips)
    model = out / "model"
    step(f"training: vidseq train {clips} --out {model} {' '.join(options)}")
    run("train", str(clips), "--out", str(model), *options)
    step(f"serving: vidseq serve {model}")
    with service(model) as url, Client(url) as client:
        truth = clip.label or "no action is given"
        step(f"asking through the SDK: Client({url!r}).classify({clip.path.name!r})   (in truth: {truth}; {note})")
        prediction = client.classify(clip.path)
        show(prediction, title=clip.path.name)
    picture = out / "timeline.png"
    draw(prediction, picture, title=clip.path.name)
    step(f"the same as a picture: {picture};  try: .venv/bin/vidseq predict {model} CLIP")


def render(clips: Path, *, unseen: Path) -> None:
    step(f"rendering {NUM_CLIPS} clips into {clips}: shapes that change, each scene filmed forwards and backwards")
    for folder, num_clips, seed in ((clips, NUM_CLIPS, 0), (unseen, 2, 1)):
        shutil.rmtree(folder, ignore_errors=True)
        render_clips(folder, num_clips=num_clips, seed=seed)


def clip_to_ask_about(folder: Path) -> tuple[LabelledClip, str]:
    """One clip that can be uploaded, of the test split if there is one, and what its answer is worth.

    Raises:
        DatasetError: mistakes in the folder, or every clip in it is a folder of pictures.
    """
    files = [clip for clip in read_clips(folder).clips if clip.path.is_file()]
    if not files:
        raise DatasetError([f"{folder}: every clip is a folder of pictures, and only a video file can be uploaded"])
    for clip in files:
        if clip.split == "test":
            return clip, "of the test split: not one of those that it was trained on"
    return files[0], "it was part of the training: this shows how to ask, not how good the model is"


def step(text: str) -> None:
    print(f"\n== {text}", flush=True)


def run(*arguments: str) -> None:
    """One `vidseq` command, as a person would type it."""
    code = subprocess.run([sys.executable, "-m", "vidseq", *arguments], check=False).returncode
    if code:
        sys.exit(code)


@contextmanager
def service(model: Path) -> Iterator[str]:
    """`vidseq serve` on a free port, until the block ends; nothing of it stays alive."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "vidseq", "serve", str(model), "--port", str(port)]
    process = subprocess.Popen(command, start_new_session=True, stdout=subprocess.PIPE, text=True)
    try:
        wait_until_ready(process)
        yield f"http://127.0.0.1:{port}"
    finally:
        stop(process)


def stop(process: "subprocess.Popen[str]") -> None:
    """Ask it to end; if it has not after a while, end its whole process group."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
    try:
        process.wait(timeout=STOP_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def wait_until_ready(process: "subprocess.Popen[str]") -> None:
    """`vidseq serve` says one line once it answers; it gives up by itself, and its output ends."""
    assert process.stdout is not None
    ready = process.stdout.readline()
    if not ready:
        sys.exit("vidseq: the service did not start")
    print(ready, end="", flush=True)


if __name__ == "__main__":
    main()

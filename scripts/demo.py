"""The whole path as a person walks it: clips -> train -> serve -> ask -> labels over time. Knows public doors only.

Run by `make demo`; `make demo CLIPS=folder` takes a person's own clips (see `vidseq train --help` for their form).
"""

import argparse
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from training.clips import read_clips
from training.render import render_clips
from vidseq.client import Client
from vidseq.errors import VidseqError
from vidseq.timeline import draw, show

NUM_CLIPS = 96
READY_SECONDS = 120


def main() -> None:
    parser = argparse.ArgumentParser(description="Train, serve and ask a model, start to end.")
    parser.add_argument("--out", type=Path, required=True, help="where the demo keeps what it makes")
    parser.add_argument("--clips", type=Path, help="your own labelled clips instead of rendered ones")
    arguments = parser.parse_args()
    try:
        demo(arguments.out, clips=arguments.clips)
    except VidseqError as error:
        sys.exit(f"vidseq: {error}")


def demo(out: Path, *, clips: Path | None) -> None:
    out.mkdir(exist_ok=True)
    if clips is None:
        clips, unseen, options = out / "clips", out / "unseen", ["--group-by", "scene", "--background", "still"]
        step(f"rendering {NUM_CLIPS} clips into {clips}: shapes that change, each scene filmed forwards and backwards")
        for folder, num_clips, seed in ((clips, NUM_CLIPS, 0), (unseen, 2, 1)):
            shutil.rmtree(folder, ignore_errors=True)
            render_clips(folder, num_clips=num_clips, seed=seed)
    else:
        unseen, options = clips, []
    model = out / "model"
    step(f"training: vidseq train {clips} --out {model} {' '.join(options)}")
    run("train", str(clips), "--out", str(model), *options)
    step(f"serving: vidseq serve {model}")
    with service(model) as url, Client(url) as client:
        clip = read_clips(unseen).clips[0]
        step(f"asking through the SDK: Client({url!r}).classify({clip.path.name!r})   (in truth: {clip.label})")
        prediction = client.classify(clip.path)
        show(prediction, title=clip.path.name)
    picture = out / "timeline.png"
    draw(prediction, picture, title=clip.path.name)
    step(f"the same as a picture: {picture};  try: .venv/bin/vidseq predict {model} CLIP")


def step(text: str) -> None:
    print(f"\n== {text}", flush=True)


def run(*arguments: str) -> None:
    """One `vidseq` command, as a person would type it."""
    code = subprocess.run([sys.executable, "-m", "vidseq", *arguments], check=False).returncode
    if code:
        sys.exit(code)


@contextmanager
def service(model: Path) -> Iterator[str]:
    """`vidseq serve` on a free port, until the block ends."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "vidseq", "serve", str(model), "--port", str(port)]
    process = subprocess.Popen(command, start_new_session=True)
    try:
        url = f"http://127.0.0.1:{port}"
        wait_until_ready(url, process)
        yield url
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        process.wait(timeout=READY_SECONDS)


def wait_until_ready(url: str, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + READY_SECONDS
    with Client(url, max_retries=0) as client:
        while True:
            try:
                client.models()
                return
            except VidseqError:
                if process.poll() is not None or time.monotonic() > deadline:
                    sys.exit("vidseq: the service did not start")
                time.sleep(0.5)


if __name__ == "__main__":
    main()

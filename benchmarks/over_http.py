"""One clip over HTTP beside the same clip in-process: CPU-seconds of every process involved, in one run.

    python -m benchmarks.over_http [CLIP ...] [--rounds 5] [--repeat 4]

Over HTTP that is this process (the client) and the whole tree of `vidseq serve`: Ray's daemons, Serve's controller and
proxy, the replicas. They use some CPU while nobody asks, too; it is measured first, over 20 seconds. `http` holds all
that was used between question and answer, `http, net` that less the idle rate. The model is the packaged backbone with
untrained heads, on both sides with one thread: several wait for each other by spinning, which the clock counts as work.
Medians of interleaved rounds; a markdown table.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from tests.running import Service, descendants, running_service
from vidseq.backbones import build_config
from vidseq.checkpoint import save_checkpoint
from vidseq.classifier import Classifier
from vidseq.client import Client
from vidseq.config import HeadsConfig, ModelConfig
from vidseq.encoder import load_default_weights
from vidseq.model import SequenceModel, VideoModel

REAL_CLIPS = Path(__file__).resolve().parents[2] / "shared" / "data" / "fight"
IDLE_SECONDS = 20.0
SECONDS_PER_TICK = 1 / os.sysconf("SC_CLK_TCK")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", nargs="*", type=Path, default=sorted(REAL_CLIPS.glob("*/*.mp4"))[::42])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--repeat", type=int, default=4, help="requests in a row for one reading: clocks tick at 10 ms")
    options = parser.parse_args()
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"  # the service inherits it
    with tempfile.TemporaryDirectory() as folder:
        model = untrained_model(Path(folder) / "model")
        begun = time.monotonic()
        with running_service(model) as service, Client(service.url) as client:
            ready_seconds = time.monotonic() - begun
            compare(
                options.clips, Classifier.load(model), client, service, rounds=options.rounds, repeat=options.repeat
            )
            megabytes = resident_bytes(service) / 2**20
    print(f"\nReady after {ready_seconds:.1f} s; {megabytes:,.0f} MB in all processes of the service afterwards.")


def compare(
    clips: list[Path], classifier: Classifier, client: Client, service: Service, *, rounds: int, repeat: int
) -> None:
    ways: dict[str, Callable[[Path], object]] = {"in-process": classifier.classify, "http": client.classify}
    for clip in clips:
        assert classifier.classify(clip).frames  # warm, both of them
        client.classify(clip)
    idle_rate = measure(lambda: time.sleep(IDLE_SECONDS), service)[0] / IDLE_SECONDS
    print("| clip | kB | frames labelled | in-process, CPU-ms | http, CPU-ms | ratio | http, net | ratio, net |")
    print("|---|---|---|---|---|---|---|---|")
    totals = [0.0, 0.0, 0.0]
    for clip in clips:
        readings: dict[str, list[float]] = {"in-process": [], "http": [], "http, net": []}
        for _ in range(rounds):
            for name, classify in ways.items():
                used, wall = measure(partial(again, classify, clip, repeat), service)
                net = (used - idle_rate * wall) / repeat
                if name == "http":
                    readings["http"].append(used / repeat)
                    readings["http, net"].append(net)
                else:
                    readings["in-process"].append(net)  # the service that idles beside it is not its doing
        row = [statistics.median(values) for values in readings.values()]
        totals = [total + value for total, value in zip(totals, row, strict=True)]
        print_row(clip.name, f"{clip.stat().st_size / 1000:.0f}", len(classifier.classify(clip).frames), row)
    print_row("all", "", "", totals)
    print(f"\nThe idle service uses {1000 * idle_rate:.0f} CPU-ms a second.")


def again(classify: Callable[[Path], object], clip: Path, repeat: int) -> None:
    for _ in range(repeat):
        classify(clip)


def print_row(name: str, kilobytes: str, num_frames: object, row: list[float]) -> None:
    in_process, http, net = row
    cells = [name, kilobytes, num_frames, f"{1000 * in_process:.0f}", f"{1000 * http:.0f}", f"{http / in_process:.2f}"]
    print("|", " | ".join(map(str, [*cells, f"{1000 * net:.0f}", f"{net / in_process:.2f}"])), "|", flush=True)


def measure(work: Callable[[], object], service: Service) -> tuple[float, float]:
    """CPU-seconds of this process and of the service while `work` ran, and its wall seconds."""
    begun, used = time.perf_counter(), time.process_time() + cpu_seconds(service.tree())
    work()
    return time.process_time() + cpu_seconds(service.tree()) - used, time.perf_counter() - begun


def cpu_seconds(pids: set[int]) -> float:
    """User and system time of all threads of these processes."""
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks * SECONDS_PER_TICK


def resident_bytes(service: Service) -> int:
    """Proportional set sizes: what several processes share is counted once."""
    num_kilobytes = 0
    for pid in {service.process.pid, *descendants(service.process.pid)}:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        num_kilobytes += next(int(line.split()[1]) for line in rollup if line.startswith("Pss:"))
    return num_kilobytes * 1024


def untrained_model(folder: Path) -> Path:
    """The packaged backbone with its ImageNet weights; what follows it knows nothing, but costs the same."""
    heads = HeadsConfig(action_labels=("fight", "no_fight"), frame_labels=("before", "during", "after"))
    config = ModelConfig(encoder=build_config(), heads=heads)
    model = VideoModel.build(config)
    load_default_weights(model.encoder)
    torch.manual_seed(0)
    baseline = SequenceModel(config.baseline(), feature_size=model.encoder.feature_size)
    save_checkpoint(
        folder, config=config, model=model, baseline=baseline, documents={"card.md": "# Untrained"}, version="0"
    )
    return folder


if __name__ == "__main__":
    main()

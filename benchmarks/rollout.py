"""Models that are replaced under load, and a service that leaves under load: requests failed, wrong and longest.

    python -m benchmarks.rollout [--rollouts 10] [--uploads 16]

A real `vidseq serve` with toy models of random weights, four threads of the SDK that ask without a pause and without a
second try. Every other rollout offers a model with one flipped bit. At the end the service is told to stop while
uploads have sent half of their clip; the rest follows.
"""

import argparse
import itertools
import signal
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from tests.running import STOP_SECONDS, Service, running_service
from tests.test_rollout import flipped, outcomes
from tests.test_two_services import half_sent
from tests.toy_models import toy_checkpoint
from tests.toy_videos import write_clip
from vidseq.classifier import Classifier
from vidseq.client import Client
from vidseq.errors import ServiceError

THREADS = 4
PATIENCE_SECONDS = 300.0


@dataclass
class Load:
    """What threads that ask without a pause were answered."""

    clip: Path
    labels: dict[str, list[str]]  # by the model's SHA-256: what it says of each frame
    num_right: dict[str, int] = field(default_factory=dict)
    num_wrong: int = 0
    num_failed: int = 0
    longest_seconds: float = 0.0
    over: threading.Event = field(default_factory=threading.Event)

    def ask(self, url: str) -> None:
        with Client(url, max_retries=0) as client:
            while not self.over.is_set():
                begun = time.monotonic()
                try:
                    answer = client.classify(self.clip)
                except ServiceError:
                    self.num_failed += 1
                    continue
                self.longest_seconds = max(self.longest_seconds, time.monotonic() - begun)
                right = [frame.label for frame in answer.frames] == self.labels.get(answer.model.sha256)
                self.num_wrong += not right
                self.num_right[answer.model.sha256] = self.num_right.get(answer.model.sha256, 0) + right


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rollouts", type=int, default=10)
    parser.add_argument("--uploads", type=int, default=16)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        models = [toy_checkpoint(home / name / "toy", seed=seed) for seed, name in enumerate("ab")]
        damaged = flipped(toy_checkpoint(home / "damaged" / "toy", seed=2))
        clip = write_clip(home / "clip.mp4", num_frames=40)
        link = home / "current"
        link.symlink_to(models[0])
        said = [Classifier.load(model).classify(clip) for model in models]
        labels = {each.model.sha256: [frame.label for frame in each.frames] for each in said}
        with running_service(link) as service:
            offered = itertools.cycle([damaged, models[1], damaged, models[0]])
            rolled_out(service, link, list(itertools.islice(offered, options.rollouts)), Load(clip, labels))
            left(service, clip.read_bytes(), num_uploads=options.uploads)


def rolled_out(service: Service, link: Path, offered: list[Path], load: Load) -> None:
    seconds = []
    with ThreadPoolExecutor(THREADS) as pool:
        for _ in range(THREADS):
            pool.submit(load.ask, service.url)
        try:
            for model in offered:
                begun, num_said = time.monotonic(), len(outcomes(service))
                link.with_name("fresh").symlink_to(model)
                link.with_name("fresh").replace(link)
                service.process.send_signal(signal.SIGHUP)
                while len(outcomes(service)) == num_said:
                    assert time.monotonic() - begun < PATIENCE_SECONDS, service.said()
                    time.sleep(0.1)
                seconds.append(time.monotonic() - begun)
        finally:
            load.over.set()
    num_refused = sum("is refused" in line for line in outcomes(service))
    print("| models offered | refused | requests, by model | failed | wrong | longest request | longest rollout |")
    print("|---|---|---|---|---|---|---|")
    by_model = " and ".join(f"{number:,}" for number in load.num_right.values())
    print(f"| {len(offered)} | {num_refused} | {by_model} | {load.num_failed} | {load.num_wrong} |", end="")
    print(f" {load.longest_seconds:.2f} s | {max(seconds):.1f} s |\n", flush=True)


def left(service: Service, clip: bytes, *, num_uploads: int) -> None:
    uploads = [half_sent(service.port, clip) for _ in range(num_uploads)]
    time.sleep(0.5)  # they are there
    begun = time.monotonic()
    service.process.terminate()
    time.sleep(2.0)  # in which the others are sent away
    answers = [upload.finish() for upload in uploads]
    service.process.wait(STOP_SECONDS)
    num_answered = sum(answer.startswith(b"HTTP/1.1 200 ") for answer in answers)
    print("| uploads in flight at SIGTERM | answered | the process has gone after | its status |\n|---|---|---|---|")
    print(f"| {num_uploads} | {num_answered} | {time.monotonic() - begun:.1f} s | {service.process.returncode} |")


if __name__ == "__main__":
    main()

"""A large file through the real service, over a line that is cut: seconds, bytes sent twice, memory of the service.

    python -m benchmarks.upload [--bytes 1000000000] [--cuts 10] [--bare]

Against a real `vidseq serve` (or its application alone, `--bare`), once over a whole line and once over one that is cut
so often, at random bytes. The file comes from `client.uploads.create`, and must be complete, with the right SHA-256.
Client, line and service share the machine's CPUs.

Memory is that of all processes of the service, proportional set sizes, in which what is shared counts once: before the
first byte, the most that was seen while they came (every 0.1 s), and 3 s afterwards. The client is not counted.
"""

import argparse
import hashlib
import os
import random
import tempfile
import threading
import time
from pathlib import Path

from benchmarks.bare import running_bare
from benchmarks.half_open import held_bytes
from benchmarks.memory import save_model
from tests.line import Line
from tests.running import Service, running_service
from vidseq.client import Client

PIECE_BYTES = 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bytes", type=int, default=1_000_000_000)
    parser.add_argument("--cuts", type=int, default=10)
    parser.add_argument("--bare", action="store_true", help="the application behind uvicorn, without Ray")
    options = parser.parse_args()
    running = running_bare if options.bare else running_service
    with tempfile.TemporaryDirectory() as folder:
        model, film = Path(folder) / "model", Path(folder) / "film"
        save_model(model)
        sha256 = write(film, options.bytes)
        with running(model) as service:
            print("| cuts | seconds | MB/s | sent, of the file | PSS before, MB | at most | afterwards | SHA-256 |")
            print("|---|---|---|---|---|---|---|---|")
            for num_cuts in (0, options.cuts):
                row(service, film, sha256, num_cuts)


def write(film: Path, num_bytes: int) -> str:
    """So many random bytes, and their SHA-256."""
    digest = hashlib.sha256()
    with film.open("wb") as file:
        for first in range(0, num_bytes, PIECE_BYTES):
            piece = os.urandom(min(PIECE_BYTES, num_bytes - first))
            digest.update(piece)
            file.write(piece)
    return digest.hexdigest()


def row(service: Service, film: Path, sha256: str, num_cuts: int) -> None:
    num_bytes, chance = film.stat().st_size, random.Random(num_cuts)
    mean_bytes = num_bytes / (num_cuts + 1)
    budgets = [int(chance.uniform(0.6, 0.95) * mean_bytes) for _ in range(num_cuts)]
    told = Told()
    with Line(service.url, budgets) as line, Client(line.url) as client, Sampled(service) as memory:
        begun_seconds = time.perf_counter()
        upload = client.uploads.create(film, on_progress=told)
        seconds = time.perf_counter() - begun_seconds
        client.uploads.delete(upload)
    assert line.num_cuts == num_cuts, f"{line.num_cuts} cuts"
    time.sleep(3)
    cells = [num_cuts, f"{seconds:.1f}", f"{num_bytes / seconds / 1e6:.0f}", f"{told.num_sent / num_bytes:.3f}"]
    cells += [f"{count / 2**20:.0f}" for count in (memory.before, memory.peak, held_bytes(service))]
    cells.append("right" if (upload.complete, upload.sha256) == (True, sha256) else "WRONG")
    print("|", " | ".join(map(str, cells)), "|", flush=True)


class Told:
    """Adds up what `on_progress` tells: what was sent, and sent again but for the first chunk after each cut."""

    def __init__(self) -> None:
        self.num_sent = self._last = 0

    def __call__(self, num_sent: int, _total: int | None) -> None:
        self.num_sent += max(0, num_sent - self._last)
        self._last = num_sent


class Sampled:
    """The memory of a service while something happens."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._over = threading.Event()
        self.before = self.peak = held_bytes(service)

    def __enter__(self) -> "Sampled":
        self._thread = threading.Thread(target=self._sample)
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._over.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._over.wait(0.1):
            self.peak = max(self.peak, held_bytes(self._service))


if __name__ == "__main__":
    main()

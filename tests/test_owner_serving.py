"""A real service with stores that outlive it: what was used is written when it leaves, what was asked to go is gone."""

from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import httpx2
import pytest

from serving.database.core import Database
from serving.forgetting import forget
from serving.keys import create_key
from serving.sealing import new_key
from serving.usage.table import Day, UsageTable
from tests.running import running_service
from tests.test_usage import FOREVER
from tests.toy_models import toy_checkpoint
from tests.toy_videos import write_clip
from tests.web_server import wait_until
from vidseq.client import Client

pytestmark = pytest.mark.cluster

FIGURES = ("ray_vidseq_problems_total", "ray_vidseq_going_on", "ray_vidseq_works_waiting", "ray_vidseq_frames_decoded")
NUM_CLIPS, NUM_BYTES_LOOKED_FOR = 6, 64


class Ran(NamedTuple):
    """A service that has run, and what was seen of it."""

    folder: Path
    key_id: str
    clip_bytes: int
    sampled: int
    told: tuple[Any, ...]  # by the service itself: what was used, up to the last seconds
    written: list[Path]  # files with bytes of a clip, while it ran
    forgotten: tuple[int, int]
    figures: str

    def url(self, name: str) -> str:
        return f"sqlite://{self.folder}/{name}.db"


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    folder = tmp_path_factory.mktemp("owner")
    key = create_key(folder / "keys.db", name="anna", scopes=["classify", "stream"], lifetime_seconds=None)
    clip = write_clip(folder / "clip.mp4", num_frames=40)
    content = clip.read_bytes()
    (folder / "sealing").write_text(new_key())
    (folder / "sealing").chmod(0o600)
    options = [word for name in ("store", "database") for word in (f"--{name}", f"sqlite://{folder}/{name}.db")]
    options += ["--keys", f"{folder}/keys.db", "--session-keys", f"{folder}/sealing"]
    with running_service(toy_checkpoint(folder / "model"), *options) as service:
        with Client(service.url, key) as client:
            predictions = [client.classify(clip) for _ in range(NUM_CLIPS)]
            told = client.usage()
            done = client.forget()
        headers = {"Authorization": f"Bearer {key}", "Content-Type": "video/mp4"}
        httpx2.post(f"{service.url}/v1/classify", content=b"no video", headers=headers)
        httpx2.post(f"{service.url}/v1/sessions", json={}, headers={"Authorization": f"Bearer {key}"})
        middle = content[len(content) // 2 :][:NUM_BYTES_LOOKED_FOR]
        places = [service.scratch, Path("/dev/shm")]
        wait_until(lambda: all(name in figures(service.url) for name in FIGURES), seconds=60)
        shown = figures(service.url)
        written = [path for place in places for path in place.rglob("*") if path.is_file() and middle in read(path)]
    sampled = sum(prediction.sampled.num_frames for prediction in predictions)
    return Ran(folder, key[4:16], len(content), sampled, told, written, (done.sessions, done.answers), shown)


def figures(url: str) -> str:
    return httpx2.get(f"{url}/metrics", timeout=20).text


def read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # gone since, or no file to be read
        return b""


def test_all_that_was_used_is_there_after_the_service_has_left(ran: Ran) -> None:
    with closing(Database(ran.url("database"))) as database:
        days = UsageTable(database).days(**FOREVER, owner=ran.key_id)
    used = [day.used for day in days if isinstance(day, Day)]
    assert sum(one.requests for one in used) == NUM_CLIPS + 4  # usage, forget, no video, a session
    assert sum(one.failed for one in used) == 1
    assert sum(one.received_bytes for one in used) == NUM_CLIPS * ran.clip_bytes + len(b"no video") + len(b"{}")
    assert sum(one.frames_labelled for one in used) == ran.sampled
    assert sum(one.frames_decoded for one in used) == NUM_CLIPS * 40
    assert sum(one.compute_seconds for one in used) > 0


def test_a_refusal_is_a_figure_by_its_type(ran: Ran) -> None:
    lines = [line for line in ran.figures.splitlines() if line.startswith("ray_vidseq_problems_total{")]
    assert ['type="video/unsupported-container"' in line and line.endswith(" 1.0") for line in lines] == [True]


def test_the_service_told_of_no_more_than_was_used(ran: Ran) -> None:
    assert sum(day.requests for day in ran.told) <= NUM_CLIPS


def test_answers_that_the_sdk_had_kept_were_forgotten(ran: Ran) -> None:
    assert ran.forgotten == (0, NUM_CLIPS)


def test_what_is_left_is_forgotten_by_the_operator_once(ran: Ran) -> None:
    done = [forget(ran.key_id, database=ran.url("database"), store=ran.url("store")) for _ in range(2)]
    assert [(one.sessions, one.answers) for one in done] == [(1, 0), (0, 0)]


def test_no_byte_of_a_clip_was_in_a_file_of_the_service(ran: Ran) -> None:
    assert ran.written == []

"""The log of a real service: each request that was answered is one line of it, and no secret is anywhere."""

import json
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from serving.keys import create_key
from tests.running import Service, running_service
from tests.stream_server import talking
from tests.toy_models import toy_checkpoint
from tests.toy_videos import write_clip

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

NAME, QUERY, WORD = "holiday-in-rome-SECRETNAME.mp4", "SECRETQUERY", "SECRETWORD"


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    file = tmp_path_factory.mktemp("keys") / "keys.db"
    return file, create_key(file, name="tests", scopes=["classify", "stream"], lifetime_seconds=None)


@pytest.fixture(scope="module")
def service(key: tuple[Path, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    model = toy_checkpoint(tmp_path_factory.mktemp("models") / "toy", with_answer=True)
    with running_service(model, "--keys", str(key[0]), "--log", "json") as service:
        yield service


def lines_of(service: Service) -> list[dict[str, Any]]:
    return [json.loads(line) for line in service.said().splitlines() if line.startswith("{")]


def test_each_answer_is_one_line_and_no_name_key_or_query_is_in_any_log(
    service: Service, key: tuple[Path, str], tmp_path: Path
) -> None:
    num_before = len(lines_of(service))
    clip = write_clip(tmp_path / "clip.mp4").read_bytes()
    mine = {"Authorization": f"Bearer {key[1]}"}
    good = {**mine, "X-Request-ID": f"mine-{uuid.uuid4().hex}"}
    wrong = {"Authorization": f"Bearer {WORD}"}
    boundary = {"Content-Type": f'multipart/form-data; boundary="{WORD}"'}
    with httpx2.Client(base_url=service.url, timeout=60) as client:
        form = {"file": (f"../../{NAME}\r\nX-Evil: {WORD}", clip, "video/mp4")}
        asked = [
            client.post(f"/v1/classify?top_k=1&note={QUERY}", files=form, headers=good),
            client.post("/v1/classify", files={"file": (NAME, clip, "video/mp4")}, headers=mine),
            client.post("/v1/classify", files={"file": (NAME, b"no video", "video/mp4")}, headers=mine),
            client.post("/v1/classify", content=b"torn", headers={**mine, **boundary}),
            client.post(f"/v1/classify?start={QUERY}", content=clip, headers={**mine, "Content-Type": "video/mp4"}),
            client.post("/v1/classify", content=clip, headers={**wrong, "Content-Type": "video/mp4"}),
            client.get(f"/v1/models?key={key[1]}", headers=mine),
            client.get(f"/v1/{NAME}", headers=mine),
            client.get(f"/v1/sessions/{WORD}?note={QUERY}", headers=mine),
            client.get(f"/{NAME}?note={QUERY}"),
        ]
    with talking(service.url, additional_headers=mine) as socket:
        socket.open()
        socket.end()
        socket.hear_all()
    assert 200 in {answer.status_code for answer in asked} and max(answer.status_code for answer in asked) < 500
    ids = [answer.headers["X-Request-ID"] for answer in asked]
    deadline = time.monotonic() + 60
    while len(lines := lines_of(service)[num_before:]) < len(ids) + 1:
        assert time.monotonic() < deadline, service.said()
        time.sleep(0.1)
    logged = [line["request_id"] for line in lines]
    assert sorted(request_id for request_id in logged if request_id in ids) == sorted(ids)
    assert len(logged) == len(ids) + 1 == len(set(logged))  # and the stream
    assert_says_nothing_of(service, NAME, "SECRETNAME", QUERY, WORD, key[1], key[1][17:])


def assert_says_nothing_of(service: Service, *secrets: str) -> None:
    """What it prints, and every log that Ray keeps while it runs."""
    logs = {path: path.read_bytes() for path in service.scratch.rglob("*") if path.suffix in (".log", ".out", ".err")}
    assert len(logs) > 5
    for secret in secrets:
        assert secret not in service.said()
        assert [path for path, text in logs.items() if secret.encode() in text] == []


def test_a_line_says_what_a_video_cost_and_for_whom(service: Service, key: tuple[Path, str], tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", num_frames=12).read_bytes()
    headers = {"Authorization": f"Bearer {key[1]}", "Content-Type": "video/mp4"}
    answer = httpx2.post(f"{service.url}/v1/classify", content=clip, headers=headers, timeout=60)
    asked = answer.headers["X-Request-ID"]
    deadline = time.monotonic() + 60
    while not (found := [line for line in lines_of(service) if line["request_id"] == asked]):
        assert time.monotonic() < deadline, service.said()
        time.sleep(0.1)
    (line,) = found
    told = {name: line[name] for name in ("route", "method", "status", "bytes_received", "frames_decoded", "model")}
    assert told == {
        "route": "/v1/classify",
        "method": "POST",
        "status": 200,
        "bytes_received": len(clip),
        "frames_decoded": 12,
        "model": "toy",
    }
    assert (line["key_id"], line["problem"]) == (key[1][4:16], "")

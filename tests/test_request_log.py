"""A line for each request that is over: what stands in it, what must never, and that writing it holds nobody up."""

import json
import logging
import pickle
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from ray._common.formatters import JSONFormatter

from serving import request_log
from serving.arguments import ControlArgs, RequestLog
from serving.finished import Finished
from serving.keyring import KeyRing
from serving.keys import create_key
from tests.stream_server import stream_app, talking
from tests.test_web import RAW, connect, head
from tests.toy_streams import chunked, toy_frames, toy_live
from tests.web_server import raising, running, toy_app, wait_until
from vidseq.errors import TooManyFrames
from vidseq.live import Live
from vidseq.messages import FRAMES_TYPE, Applied, pack_frames

ONE = Finished(
    request_id="abc",
    route="/v1/classify",
    method="POST",
    status=200,
    seconds=0.4123456789,
    key_id="0123456789ab",
    bytes_received=281_223,
    frames_decoded=75,
    model="toy",
    problem="",
)
FIELDS = {"time", *ONE.__dataclass_fields__}


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with toy_live(tmp_path_factory.mktemp("live")) as live:
        yield live


# What is known of a request


def test_a_video_is_told_with_its_bytes_its_frames_its_model_and_who_sent_it(tmp_path: Path) -> None:
    file, seen = tmp_path / "keys.db", list[Finished]()
    key = create_key(file, name="anna", scopes=["classify"], lifetime_seconds=None)
    with running(toy_app(keys=KeyRing(file), observe=seen.append)) as url:
        headers = {**RAW, "Authorization": f"Bearer {key}", "X-Request-ID": "mine"}
        httpx2.post(f"{url}/v1/classify?top_k=3", content=b"video", headers=headers)
        wait_until(lambda: len(seen) == 1)
    (one,) = seen
    assert one == Finished(
        request_id="mine",
        route="/v1/classify",
        method="POST",
        status=200,
        seconds=one.seconds,
        key_id=key[4:16],
        bytes_received=5,
        frames_decoded=1,
        model="toy",
        problem="",
    )


def test_a_key_that_is_for_something_else_is_told_by_its_id_and_an_unknown_one_not_at_all(tmp_path: Path) -> None:
    file, seen = tmp_path / "keys.db", list[Finished]()
    key = create_key(file, name="anna", scopes=["stream"], lifetime_seconds=None)
    unknown = "vsk_" + "0" * 12 + "_" + "A" * 43
    with running(toy_app(keys=KeyRing(file), observe=seen.append)) as url:
        for shown in (key, unknown):
            httpx2.post(f"{url}/v1/classify", content=b"v", headers={**RAW, "Authorization": f"Bearer {shown}"})
        wait_until(lambda: len(seen) == 2)
    assert [(one.status, one.problem, one.key_id) for one in seen] == [
        (403, "key/scope", key[4:16]),
        (401, "key/unknown", ""),
    ]


@pytest.mark.parametrize(
    ("classify", "status", "problem"),
    [
        (raising(TooManyFrames(3, 2)), 422, "video/too-many-frames"),
        (raising(RuntimeError("secret")), 500, "http/internal-server-error"),
    ],
)
def test_a_problem_is_told_by_its_type(classify: Any, status: int, problem: str) -> None:
    seen: list[Finished] = []
    with running(toy_app(classify, observe=seen.append)) as url:
        httpx2.post(f"{url}/v1/classify", content=b"video", headers=RAW)
        wait_until(lambda: len(seen) == 1)
    assert [(one.status, one.problem, one.bytes_received) for one in seen] == [(status, problem, 5)]


def test_a_client_that_goes_is_told_with_what_came_of_its_body() -> None:
    seen: list[Finished] = []
    with running(toy_app(observe=seen.append)) as url:
        connection = connect(url)
        connection.sendall(head("Content-Type: video/mp4\r\nContent-Length: 1000000") + b"x" * 1000)
        wait_until(lambda: True)
        connection.close()
        wait_until(lambda: len(seen) == 1)
    assert (seen[0].status, seen[0].bytes_received) in [(499, 1000), (499, 0)]


def test_a_stream_is_one_line_with_what_came_and_how_many_frames_were_labelled(live: Live, tmp_path: Path) -> None:
    seen: list[Finished] = []
    pushes = [pack_frames(frames) for frames in chunked(toy_frames(10), [4, 6])]
    with running(stream_app(live, tmp_path, observe=seen.append)) as url:
        with talking(url) as client:
            client.open()
            for push in pushes:
                client.say(push)
            client.end()
            told = [message for message in client.hear_all() if isinstance(message, Applied)]
        with talking(url) as client:
            client.say("{}")
            client.hear_all()
        wait_until(lambda: len(seen) == 2)
    good, bad = seen
    num_labels = sum(len(message.labels) for message in told)
    assert (good.frames_decoded, good.model, good.problem) == (num_labels, live.info.name, "")
    assert good.bytes_received > sum(map(len, pushes))
    assert (bad.status, bad.problem, bad.bytes_received) == (4422, "option/invalid", 2)


def test_a_push_over_http_is_a_line_and_so_is_one_that_is_refused(live: Live, tmp_path: Path) -> None:
    seen: list[Finished] = []
    (push,) = (pack_frames(frames) for frames in chunked(toy_frames(7), [7]))
    with running(stream_app(live, tmp_path, observe=seen.append)) as url:
        session = httpx2.post(f"{url}/v1/sessions", json={"type": "open"}).json()["session"]
        where = f"{url}/v1/sessions/{session}/pushes/0"
        labels = httpx2.put(where, content=push, headers={"Content-Type": FRAMES_TYPE}).json()["labels"]
        httpx2.put(f"{url}/v1/sessions/{session}/pushes/7", content=push, headers={"Content-Type": FRAMES_TYPE})
        wait_until(lambda: len(seen) == 3)
    opened, pushed, refused = seen
    assert (opened.model, pushed.model, pushed.frames_decoded) == (live.info.name, live.info.name, len(labels))
    assert pushed.route.endswith("/sessions/{session}/pushes/{sequence}")
    assert (refused.status, refused.problem) == (409, "session/sequence")


# How it is written


def lines_of(observed: list[Finished], tmp_path: Path, form: request_log.Form) -> list[str]:
    lines: list[str] = []
    with request_log.printed(tmp_path, lines.append) as pipe:
        observe = request_log.to_pipe(pipe, form)
        for finished in observed:
            observe(finished)
    return lines


def test_a_line_of_json_holds_every_field(tmp_path: Path) -> None:
    (line,) = lines_of([ONE], tmp_path, "json")
    said = json.loads(line)
    assert said.keys() == FIELDS
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", said["time"])
    assert (said["seconds"], said["bytes_received"], said["key_id"]) == (0.412346, 281_223, "0123456789ab")


def test_a_line_of_text_is_for_people_and_leaves_out_what_there_is_not(tmp_path: Path) -> None:
    nothing = dict.fromkeys(("route", "method", "model", "key_id"), "")
    unknown = Finished(**{**vars(ONE), **nothing, "problem": "http/not-found"})
    first, second = lines_of([ONE, unknown], tmp_path, "text")
    words = "200 POST /v1/classify 0.412s 281,223 bytes 75 frames model toy key 0123456789ab id abc"
    assert first.partition(" ")[2] == words
    assert second.partition(" ")[2] == "200 - - 0.412s 281,223 bytes 75 frames problem http/not-found id abc"


def test_probes_are_not_logged_and_an_unknown_path_is(tmp_path: Path) -> None:
    probes = [Finished(**{**vars(ONE), "route": route}) for route in sorted(request_log.PROBES)]
    assert len(lines_of([*probes, ONE], tmp_path, "text")) == 1


def test_a_models_name_cannot_break_a_line_or_a_terminal(tmp_path: Path) -> None:
    nasty = Finished(**{**vars(ONE), "model": "a\n\x1b[31m" + "\U0001f600" * 5000})
    for form in ("text", "json"):
        (line,) = lines_of([nasty], tmp_path, form)
        assert "a??[31m" in line and len(line.encode()) < 4096


def test_serves_own_log_has_the_line_as_text_and_its_fields_beside_it() -> None:
    """As the logging_config of deploy/serve.yaml says: encoding JSON."""
    lines: list[str] = []

    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(JSONFormatter().format(record))

    logger = logging.Logger("ray.serve", logging.INFO)
    logger.addHandler(Kept())
    request_log.to_logger(logger)(ONE)
    said = json.loads(lines[0])
    assert said["message"].startswith("200 POST /v1/classify")
    assert said["request"] == {**vars(ONE), "seconds": 0.412346}


WRITER = """
import sys
from pathlib import Path
from serving import request_log
from serving.finished import Finished
observe = request_log.to_pipe(Path(sys.argv[1]), "json")
same = dict(route="/v1/classify", method="POST", status=200, seconds=0.4, key_id="", model="toy", problem="")
for number in range(100):  # fewer bytes than a pipe holds
    name = f"{sys.argv[2]}-{number}"
    observe(Finished(request_id=name, bytes_received=1, frames_decoded=1, **same))
"""


def test_lines_of_several_processes_do_not_mix(tmp_path: Path) -> None:
    lines: list[str] = []
    with request_log.printed(tmp_path, lines.append) as pipe:
        here = Path(__file__).parents[1]
        writers = [subprocess.Popen([sys.executable, "-c", WRITER, pipe, name], cwd=here) for name in "ab"]
        assert [writer.wait(240) for writer in writers] == [0, 0]
    ids = [json.loads(line)["request_id"] for line in lines]
    assert sorted(ids) == sorted(f"{name}-{number}" for name in "ab" for number in range(100))
    assert not (tmp_path / "requests").exists()


def test_a_reader_that_stalls_holds_nobody_up_and_is_told_what_it_missed(tmp_path: Path) -> None:
    lines: list[str] = []
    going_on = threading.Event()

    def stalled(line: str) -> None:
        going_on.wait(60)
        lines.append(line)

    with request_log.printed(tmp_path, stalled) as pipe:
        observe = request_log.to_pipe(pipe, "json")
        for _ in range(2000):  # some 600 KB, where a pipe holds 64
            observe(ONE)
        going_on.set()
        num_told = 2000
        while not any("last" in line for line in lines):  # it tells of those that were lost
            observe(Finished(**{**vars(ONE), "request_id": "last"}))
            num_told += 1
            time.sleep(0.05)
    missed = [json.loads(line).get("lines_lost_before", 0) for line in lines]
    assert sum(missed) > 1000
    assert len(lines) + sum(missed) == num_told


def test_a_replica_is_told_of_its_pipe_by_its_arguments(tmp_path: Path) -> None:
    lines: list[str] = []
    with request_log.printed(tmp_path, lines.append) as pipe:
        args = ControlArgs(log=RequestLog(form="json", pipe=pipe))
        pickle.loads(pickle.dumps(args)).log.observer()(ONE)
        RequestLog(form="off", pipe=pipe).observer()(ONE)
    assert [json.loads(line)["request_id"] for line in lines] == ["abc"]

"""Sessions over HTTP on a real server with a real toy model: every push counts once, and every error has its number."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.stream_server import stream_app
from tests.test_web import problem_of
from tests.toy_streams import assert_same, chunked, encoded, labels, picture, pushed, run, toy_frames, toy_live
from tests.web_server import running, toy_app
from vidseq.live import Live
from vidseq.messages import FRAMES_TYPE, Applied, Final, Ready, Standing, pack_frames

FRAMES = toy_frames(30)
PUSHES = [pack_frames(frames) for frames in chunked(FRAMES, [7])]
FRAMES_BODY = {"Content-Type": FRAMES_TYPE}
PATH = "/v1/sessions"


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with toy_live(tmp_path_factory.mktemp("live")) as live:
        yield live


@pytest.fixture(scope="module")
def http_client(live: Live, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx2.Client]:
    app = stream_app(live, tmp_path_factory.mktemp("store"), sessions={"max_push_bytes": 1_000_000})
    with running(app) as url, httpx2.Client(base_url=url, timeout=20) as client:
        yield client


def opened(http_client: httpx2.Client, **asked: Any) -> str:
    """The path of a new session."""
    answer = http_client.post(PATH, json=asked)
    assert answer.status_code == 201, answer.text
    ready = Ready.model_validate_json(answer.content)
    assert answer.headers["Location"] == f"{PATH}/{ready.session}"
    return answer.headers["Location"]


def put(http_client: httpx2.Client, path: str, number: int, push: bytes | None = None) -> httpx2.Response:
    content = PUSHES[number] if push is None else push
    return http_client.put(f"{path}/pushes/{number}", content=content, headers=FRAMES_BODY)


def applied_of(response: httpx2.Response) -> Applied:
    assert response.status_code == 200, response.text
    return Applied.model_validate_json(response.content)


def test_pushes_get_the_labels_that_the_model_gives_without_a_server(live: Live, http_client: httpx2.Client) -> None:
    path = opened(http_client)
    answers = [applied_of(put(http_client, path, number)) for number in range(len(PUSHES))]
    final = Final.model_validate_json(http_client.post(f"{path}/end").content)
    expected, session = run(pushed(live, chunked(FRAMES, [7])))
    assert_same(labels(answers), labels(expected))
    assert final.prediction.sampled.num_frames == session.track.num_frames


def test_a_push_that_comes_again_is_answered_with_what_was_said_then(http_client: httpx2.Client) -> None:
    path = opened(http_client)
    answers = [put(http_client, path, number).json() for number in (0, 1)]
    assert [put(http_client, path, number).json() for number in (1, 0, 1)] == [answers[1], answers[0], answers[1]]


def test_a_gap_is_a_conflict_that_names_the_push_expected(http_client: httpx2.Client) -> None:
    path = opened(http_client)
    put(http_client, path, 0)
    problem = problem_of(put(http_client, path, 2))
    assert (problem.status, problem.type, problem.expected_sequence) == (409, "session/sequence", 1)


def test_a_number_that_was_used_with_other_content_is_a_conflict(http_client: httpx2.Client) -> None:
    path = opened(http_client)
    put(http_client, path, 0)
    problem = problem_of(put(http_client, path, 0, PUSHES[1]))
    assert (problem.status, problem.type, problem.expected_sequence) == (409, "session/push-mismatch", None)


def test_single_images_are_pushes_too(http_client: httpx2.Client) -> None:
    path = opened(http_client)
    for number, format in enumerate(("png", "webp", "png")):
        image = bytes(encoded(picture(number), 0.0, format=format).data)
        answer = http_client.put(
            f"{path}/pushes/{number}",
            params={"seconds": number / 2},
            content=image,
            headers={"Content-Type": f"image/{format}"},
        )
        assert [moment.seconds for moment in applied_of(answer).labels] == [number / 2]


def test_a_session_tells_where_it_stands(http_client: httpx2.Client) -> None:
    path = opened(http_client)
    put(http_client, path, 0)
    standing = Standing.model_validate_json(http_client.get(path).content)
    assert (standing.next_sequence, standing.last_seconds, standing.ended) == (1, 0.6, False)
    assert standing.action is not None


def test_an_end_can_be_asked_for_again_and_nothing_comes_after_it(http_client: httpx2.Client) -> None:
    path = opened(http_client)
    put(http_client, path, 0)
    first = http_client.post(f"{path}/end")
    assert (first.status_code, http_client.post(f"{path}/end").json()) == (200, first.json())
    assert problem_of(put(http_client, path, 1)).type == "session/ended"


def test_a_session_that_is_forgotten_is_not_found(http_client: httpx2.Client) -> None:
    path = opened(http_client)
    assert http_client.delete(path).status_code == 204
    for answer in (http_client.get(path), put(http_client, path, 0), http_client.post(f"{path}/end")):
        assert (problem_of(answer).status, problem_of(answer).type) == (404, "session/not-found")


def test_a_session_whose_time_is_over_is_gone(live: Live, tmp_path: Path) -> None:
    app = stream_app(live, tmp_path, sessions={"lifetimes": {"idle_seconds": 1e-6}})
    with running(app) as url, httpx2.Client(base_url=url) as client:
        problem = problem_of(client.get(opened(client)))
    assert (problem.status, problem.type) == (410, "session/expired")


def test_a_session_whose_model_was_replaced_names_both(live: Live, tmp_path: Path) -> None:
    with running(stream_app(live, tmp_path)) as url, httpx2.Client(base_url=url) as client:
        path = opened(client)
    with toy_live(tmp_path, seed=1) as other, running(stream_app(other, tmp_path)) as url:
        problem = problem_of(httpx2.put(f"{url}{path}/pushes/0", content=PUSHES[0], headers=FRAMES_BODY))
    assert (problem.status, problem.type) == (409, "session/model-replaced")
    assert live.info.sha256[:12] in problem.detail and other.info.sha256[:12] in problem.detail


def test_somebody_elses_session_is_not_found(http_client: httpx2.Client) -> None:
    path = http_client.post(PATH, json={}, headers={"Authorization": "Bearer mine"}).headers["Location"]
    assert http_client.get(path, headers={"Authorization": "Bearer mine"}).status_code == 200
    for headers in ({}, {"Authorization": "Bearer other"}):
        assert problem_of(http_client.get(path, headers=headers)).status == 404


def test_a_session_over_http_does_not_go_on_from_what_is_no_token(http_client: httpx2.Client) -> None:
    problem = problem_of(http_client.post(PATH, json={"resume": {"token": "nonsense"}}))
    assert (problem.status, problem.type) == (403, "session/token")


@pytest.mark.parametrize(
    ("asked", "word"),
    [
        (b"", "body"),
        (b"{", "body"),
        (b'{"inputs": "frames"}', "inputs"),
        (b'{"input": "video"}', "WS /v1/streams"),
        (b'{"keep": "client"}', "WS /v1/streams"),
        (b'{"resume": {"session": "x"}}', "push to it"),
    ],
)
def test_a_wrong_opening_is_refused_with_a_sentence(http_client: httpx2.Client, asked: bytes, word: str) -> None:
    problem = problem_of(http_client.post(PATH, content=asked, headers={"Content-Type": "application/json"}))
    assert (problem.status, problem.type) == (422, "option/invalid")
    assert word in problem.detail


def test_another_model_is_not_found(http_client: httpx2.Client) -> None:
    assert problem_of(http_client.post(PATH, json={"model": "other"})).type == "model/not-found"


@pytest.mark.parametrize(
    ("content_type", "query", "content", "status"),
    [
        (FRAMES_TYPE, "", b"not a push", 422),
        (FRAMES_TYPE, "", b"", 422),
        (FRAMES_TYPE, "?seconds=1", PUSHES[0], 422),
        ("image/png", "", b"x", 422),
        ("image/png", "?seconds=nan", b"x", 422),
        ("image/png", "?seconds=1", b"", 422),
        ("image/gif", "?seconds=1", b"x", 415),
        ("application/json", "", b"{}", 415),
        (FRAMES_TYPE, "", bytes(1_000_001), 413),
    ],
)
def test_a_wrong_push_is_refused_and_the_session_stays_where_it_was(
    http_client: httpx2.Client, content_type: str, query: str, content: bytes, status: int
) -> None:
    path = opened(http_client)
    headers = {"Content-Type": content_type}
    answer = http_client.put(f"{path}/pushes/0{query}", content=content, headers=headers)
    assert problem_of(answer).status == status
    assert applied_of(put(http_client, path, 0)).sequence == 0


def test_a_push_without_a_length_is_refused_while_it_is_read(http_client: httpx2.Client) -> None:
    path = opened(http_client)
    answer = http_client.put(f"{path}/pushes/0", content=(bytes(100_000) for _ in range(11)), headers=FRAMES_BODY)
    assert (problem_of(answer).status, problem_of(answer).type) == (413, "request/body-too-large")


@pytest.mark.parametrize("number", ["-1", "x", "1e3", str(2**63)])
def test_a_push_with_a_number_that_is_none_is_refused(http_client: httpx2.Client, number: str) -> None:
    path = opened(http_client)
    answer = http_client.put(f"{path}/pushes/{number}", content=PUSHES[0], headers=FRAMES_BODY)
    assert problem_of(answer).status == 422


def test_a_model_that_cannot_stream_says_so_on_every_path() -> None:
    with running(toy_app()) as url, httpx2.Client(base_url=url) as client:
        path = f"{PATH}/any"
        answers = [client.post(PATH, json={}), put(client, path, 0), client.get(path), client.delete(path)]
        assert [problem_of(answer).type for answer in answers] == ["state/offline-only"] * 4

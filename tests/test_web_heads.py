"""Several models behind POST /v1/classify: which is asked, in which form the answer comes, and which key may ask."""

from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from serving.keyring import KeyRing
from serving.keys import create_key
from serving.usage.used import of_video
from tests.stream_server import refusal, stream_app, talking
from tests.test_once import KEYED, Counted
from tests.test_web import CLASSIFY, RAW, problem_of
from tests.toy_streams import toy_live
from tests.web_server import MODEL, running, toy_app
from vidseq.live import Live
from vidseq.messages import Open
from vidseq.schemas import ModelInfo, Models, Prediction, Predictions

THREE = Models(models=tuple(MODEL.model_copy(update={"name": name, "sha256": name * 64}) for name in "abc"))
LINES = RAW | {"Accept": "application/x-ndjson"}


@pytest.fixture(scope="module")
def http_client() -> Iterator[httpx2.Client]:
    with running(toy_app(models=THREE)) as url, httpx2.Client(base_url=url, timeout=20) as client:
        yield client


def asked(client: httpx2.Client, query: str = "", **headers: str) -> httpx2.Response:
    return client.post(f"{CLASSIFY}?{query}", content=b"video", headers=RAW | headers)


def names_in(response: httpx2.Response) -> list[str]:
    assert response.status_code == 200, response.text
    return [one.model.name for one in Predictions.model_validate_json(response.content).predictions]


# Which model -----------------------------------------------------------------------------------------


def test_one_model_or_none_is_answered_with_a_prediction(http_client: httpx2.Client) -> None:
    for query, name in (("", "toy"), ("model=b", "b"), ("model=a", "a")):  # none: the callable's own first
        assert Prediction.model_validate_json(asked(http_client, query).content).model.name == name


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("model=a&model=c", ["a", "c"]),
        ("model=c&top_k=2&model=a", ["c", "a"]),
        ("model=all", ["a", "b", "c"]),
    ],
)
def test_several_are_answered_with_predictions_in_the_order_asked(
    http_client: httpx2.Client, query: str, names: list[str]
) -> None:
    assert names_in(asked(http_client, query)) == names


def test_all_of_one_is_told_in_the_form_of_several() -> None:
    with running(toy_app(models=Models(models=THREE.models[:1]))) as url, httpx2.Client(base_url=url) as client:
        assert names_in(asked(client, "model=all")) == ["a"]


def test_options_are_those_of_each(http_client: httpx2.Client) -> None:
    answer = Predictions.model_validate_json(asked(http_client, "model=all&top_k=2&frames=false").content)
    assert [(len(one.top), len(one.frames), len(one.segments)) for one in answer.predictions] == [(2, 0, 1)] * 3


@pytest.mark.parametrize(
    ("query", "status", "sentence"),
    [
        ("model=a&model=d", 404, "no model is named 'd'; there are: a, b, c"),
        ("model=a&model=a", 422, "'a' among several; each is named once"),
        ("model=all&model=a", 422, "'all' among several"),
        ("model=a&model=b&early_exit=0.9", 422, "early_exit is for one model"),
        ("model=all&early_exit=0.9", 422, "early_exit is for one model"),
        ("model=a&model=" + "x" * 201, 422, "model"),
        ("&".join(["model=a"] * 101), 422, "model"),
    ],
)
def test_what_cannot_be_asked_is_refused_in_words(
    http_client: httpx2.Client, query: str, status: int, sentence: str
) -> None:
    problem = problem_of(asked(http_client, query))
    assert (problem.status, sentence in problem.detail) == (status, True), problem.detail


def test_early_exit_is_for_any_one_model(http_client: httpx2.Client) -> None:
    answer = Prediction.model_validate_json(asked(http_client, "model=b&early_exit=0.9&early_hold=2").content)
    assert answer.early_exit is not None and (answer.early_exit.seconds, answer.model.name) == (2.0, "b")


def test_what_several_cost_together_is_counted_once_where_it_is_shared() -> None:
    one = Prediction.model_validate_json(asked_directly())
    both = of_video([one, one])
    assert (both.frames_decoded, both.frames_labelled, both.compute_seconds) == (1, 2, 0.004)


def asked_directly() -> bytes:
    with running(toy_app(models=THREE)) as url:
        return httpx2.post(url + CLASSIFY, content=b"video", headers=RAW).content


# Streams ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with toy_live(tmp_path_factory.mktemp("live")) as live:
        yield live


@pytest.fixture(scope="module")
def streaming(live: Live, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx2.Client]:
    """The first model streams."""
    models = Models(models=(live.info, *THREE.models))
    app = stream_app(live, tmp_path_factory.mktemp("store"), models=models)
    with running(app) as url, httpx2.Client(base_url=url, timeout=20) as client:
        yield client


def test_streams_are_of_the_first_model_and_say_so(streaming: httpx2.Client, live: Live) -> None:
    for model in (None, live.info.name):
        assert streaming.post("/v1/sessions", json={"model": model}).status_code == 201
    for response in (streaming.post("/v1/sessions", json={"model": "b"}), refused_line(streaming, "model=b")):
        problem = problem_of(response)
        assert (problem.status, "of the first model" in problem.detail) == (422, True)
    assert problem_of(streaming.post("/v1/sessions", json={"model": "d"})).status == 404


def test_labels_line_by_line_are_of_one_model(streaming: httpx2.Client) -> None:
    assert "are of one model" in problem_of(refused_line(streaming, "model=a&model=b")).detail
    assert "of the first model" in problem_of(refused_line(streaming, "model=all")).detail


def refused_line(client: httpx2.Client, query: str) -> httpx2.Response:
    return client.post(f"{CLASSIFY}?{query}", content=b"video", headers=LINES)


# Idempotency -----------------------------------------------------------------------------------------


def test_the_same_models_get_the_same_answer_and_others_are_another_request() -> None:
    counted = Counted()
    with running(toy_app(counted, models=THREE)) as url, httpx2.Client(base_url=url, timeout=20) as client:
        first = asked(client, "model=a&model=b", **KEYED)
        again = asked(client, "model=a&model=b", **KEYED)
        assert again.headers["Idempotency-Replayed"] == "true" and again.content == first.content
        for query in ("model=b&model=a", "model=all", "model=a", ""):
            assert problem_of(asked(client, query, **KEYED)).type == "idempotency/mismatch"


@pytest.mark.parametrize("query", ["model=a&model=b", "model=all"])
def test_an_answer_of_which_one_model_was_replaced_is_not_given_for_the_new_one(query: str, tmp_path: Path) -> None:
    newer = ModelInfo(name="b", version="2", sha256="e" * 64)
    after = Models(models=(THREE.models[0], newer, THREE.models[2]))
    with running(toy_app(models=THREE)) as url, httpx2.Client(base_url=url) as client:
        assert asked(client, query, **(KEYED | {"Idempotency-Key": query})).status_code == 200
    with running(toy_app(models=after)) as url, httpx2.Client(base_url=url) as client:
        problem = problem_of(asked(client, query, **(KEYED | {"Idempotency-Key": query})))
    assert (problem.type, "replaced since" in problem.detail) == ("idempotency/mismatch", True)


# Keys ------------------------------------------------------------------------------------------------


class Doors:
    """Clients of one service by whose key they show: `b` and `bc` may ask these models, `x` one that is not there."""

    def __init__(self, url: str, file: Path) -> None:
        self.clients = dict[str, httpx2.Client]()
        for name, models in {"any": None, "b": ["b"], "cb": ["c", "b"], "x": ["x"]}.items():
            scopes = ["classify", "stream"]
            key = create_key(file, name=name, scopes=scopes, lifetime_seconds=None, models=models)
            self.clients[name] = httpx2.Client(base_url=url, timeout=20, headers={"Authorization": f"Bearer {key}"})


@pytest.fixture(scope="module")
def doors(live: Live, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, httpx2.Client]]:
    folder = tmp_path_factory.mktemp("keys")
    app = stream_app(live, folder, keys=KeyRing(folder / "keys.db"), models=THREE)
    with running(app) as url:
        clients = Doors(url, folder / "keys.db").clients
        yield clients
        for client in clients.values():
            client.close()


def listed(client: httpx2.Client) -> list[str]:
    return [info["name"] for info in client.get("/v1/models").json()["models"]]


def test_each_key_is_told_of_the_models_that_it_may_ask(doors: dict[str, httpx2.Client]) -> None:
    told = {name: listed(client) for name, client in doors.items()}
    assert told == {"any": ["a", "b", "c"], "b": ["b"], "cb": ["b", "c"], "x": []}


def test_without_a_name_a_key_asks_the_first_that_it_may(doors: dict[str, httpx2.Client]) -> None:
    answers = {name: asked(doors[name]).json()["model"]["name"] for name in ("any", "b", "cb")}
    assert answers == {"any": "toy", "b": "b", "cb": "b"}


def test_all_are_those_that_a_key_may_ask(doors: dict[str, httpx2.Client]) -> None:
    told = {name: names_in(asked(doors[name], "model=all")) for name in ("any", "b", "cb")}
    assert told == {"any": ["a", "b", "c"], "b": ["b"], "cb": ["b", "c"]}


@pytest.mark.parametrize("query", ["model=a", "model=nowhere", "model=b&model=a"])
def test_another_model_is_refused_whether_it_is_there_or_not(doors: dict[str, httpx2.Client], query: str) -> None:
    response = asked(doors["b"], query)
    problem = problem_of(response)
    assert (problem.status, problem.type) == (403, "key/model")
    assert problem.detail == f"this key may not ask {query.rpartition('=')[2]!r}; it may ask b"
    assert response.headers["WWW-Authenticate"] == 'Bearer error="insufficient_scope"'


def test_a_key_whose_models_are_not_there_is_told_so_and_of_no_others(doors: dict[str, httpx2.Client]) -> None:
    for query in ("", "model=x", "model=all"):
        problem = problem_of(asked(doors["x"], query))
        assert (problem.status, problem.type) == (404, "model/not-found")
        assert problem.detail == "no model that this key may ask is loaded: it may ask x"


def test_a_key_that_may_not_ask_the_first_model_opens_no_streams(doors: dict[str, httpx2.Client]) -> None:
    for model in (None, "a"):
        problem = problem_of(doors["b"].post("/v1/sessions", json={"model": model}))
        assert (problem.status, problem.type) == (403, "key/model")
    assert "of the first model" in problem_of(doors["b"].post("/v1/sessions", json={"model": "b"})).detail
    assert problem_of(refused_line(doors["b"], "")).type == "key/model"


def test_a_stream_of_a_key_that_may_not_ask_its_model_is_closed_with_the_problem(
    doors: dict[str, httpx2.Client],
) -> None:
    url, key = str(doors["b"].base_url).rstrip("/"), doors["b"].headers["Authorization"]
    with talking(url, additional_headers={"Authorization": key}) as client:
        client.say(Open().model_dump_json())
        failed, code = refusal(client)
    assert (failed.problem.type, code) == ("key/model", 4403)

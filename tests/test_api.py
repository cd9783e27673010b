"""What is promised of the API: page and code say the same, nothing that was there goes, clients bear what comes."""

import copy
import hashlib
import io
import json
import re
import shlex
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from require import need

from scripts.api_page import problem_types, with_tables
from scripts.openapi import PAGE, PATH, broken, text
from serving.database.core import Database
from serving.keyring import KeyRing
from serving.usage.ledger import Ledger
from serving.usage.table import UsageTable
from serving.web import whole_api
from tests.stream_server import stream_app
from tests.test_guard import bearer, made
from tests.toy_jobs import Kept, inline
from tests.toy_streams import encoded, picture, toy_live
from tests.toy_videos import write_clip
from tests.web_server import MODEL, count_bytes, running
from vidseq.client import Client

COMMITTED = json.loads(PATH.read_text())
PAGE_TEXT = PAGE.read_text()
CURLS = [line for line in PAGE_TEXT.splitlines() if line.startswith("curl ")]
Docs = dict[str, Any]


# The page and the code --------------------------------------------------------------------------------


def test_the_committed_description_is_that_of_the_code() -> None:
    assert PATH.read_text() == text(whole_api()), "`make openapi` writes it anew"


def test_the_tables_of_the_page_are_those_of_the_code() -> None:
    assert with_tables(PAGE_TEXT, whole_api()) == PAGE_TEXT, "`make openapi` writes them anew"


def test_every_problem_and_every_route_stands_on_the_page() -> None:
    routes = [f"`{verb.upper()} {path}`" for path, verbs in whole_api()["paths"].items() for verb in verbs]
    types = [f"| `{kind}` | {status} |" for status, kind in problem_types()]
    assert len(types) > 50
    assert [one for one in (*routes, *types) if one not in PAGE_TEXT] == []


def test_the_page_has_a_line_of_curl_for_each_route() -> None:
    verbs_asked = {(method_in(line), path_in(line)) for line in CURLS}
    routes = {(verb.upper(), path) for path, verbs in whole_api()["paths"].items() for verb in verbs}
    assert routes - verbs_asked == set()


def method_in(line: str) -> str:
    words = shlex.split(line)
    if "-X" in words:
        return words[words.index("-X") + 1]
    if "-I" in words:
        return "HEAD"
    return "POST" if {"-d", "-F", "--data-binary"}.intersection(words) else "GET"


def path_in(line: str) -> str:
    (path,) = re.findall(r'"\$URL([^"?]*)', line)
    for shown, declared in (
        ("$SESSION", "{session}"),
        ("/pushes/0", "/pushes/{sequence}"),
        ("$UPLOAD", "{upload}"),
        ("$JOB", "{job}"),
    ):
        path = path.replace(shown, declared)
    return path


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """What the lines of curl find in their environment, and files beside them."""
    folder = tmp_path_factory.mktemp("curl")
    key = made(folder / "keys.db", "anna", ["classify", "stream"])
    clip = write_clip(folder / "clip.mp4", num_frames=10).read_bytes()
    (folder / "frame.png").write_bytes(encoded(picture(3), 0.0).data)
    database = Database(f"sqlite://{folder}/vidseq.db")
    ledger, kept = Ledger(UsageTable(database), by_key=True), Kept(database, folder / "uploads")
    with toy_live(folder) as live:
        app = stream_app(
            live, folder, keys=KeyRing(folder / "keys.db"), ledger=ledger, uploads=kept.uploads, jobs=kept.jobs
        )
        with running(app) as url, httpx2.Client(base_url=url, headers=bearer(key)) as client:
            session = client.post("/v1/sessions", json={}).json()["session"]
            upload = client.post("/v1/uploads", json={"num_bytes": len(clip)}).json()["id"]
            job = client.post("/v1/jobs", json={"items": [inline(clip)]}).json()["id"]
            asked = {"SESSION": session, "UPLOAD": upload, "JOB": job, "SHA256": hashlib.sha256(clip).hexdigest()}
            yield {"URL": url, "KEY": key, "FOLDER": str(folder)} | asked


def test_every_line_of_curl_is_answered_as_the_page_says(service: dict[str, str]) -> None:
    lines = [line.replace("curl ", "curl --silent --show-error --fail-with-body ", 1) for line in CURLS]
    done = subprocess.run(
        [need("bash"), "-ec", "\n".join(f"{line}; echo" for line in lines)],
        cwd=service["FOLDER"],
        env=service | {"PATH": str(Path(need("curl")).parent)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, len(done.stdout.splitlines()) >= len(lines) > 12) == (0, True), done.stdout + done.stderr


# What may change ---------------------------------------------------------------------------------------


def test_nothing_of_what_was_promised_is_broken() -> None:
    assert broken(COMMITTED, whole_api()) == []


def asked(docs: Docs) -> Any:
    return docs["paths"]["/v1/classify"]["post"]


def parameter(docs: Docs, name: str) -> Any:
    return next(one for one in asked(docs)["parameters"] if one["name"] == name)


def session_body(docs: Docs) -> Any:
    return docs["paths"]["/v1/sessions"]["post"]["requestBody"]["content"]["application/json"]["schema"]


def answer(docs: Docs) -> Any:
    return asked(docs)["responses"]["200"]["content"]["application/json"]["schema"]


def told(docs: Docs, name: str) -> Any:
    return docs["components"]["schemas"][name]


NEEDED = {"name": "new", "in": "query", "required": True, "schema": {}}
BREAKING: dict[str, Callable[[Docs], object]] = {
    "POST /v1/classify is gone": lambda docs: docs["paths"]["/v1/classify"].pop("post"),
    "the query parameter top_k is gone": lambda docs: asked(docs)["parameters"].remove(parameter(docs, "top_k")),
    "the query parameter top_k is required now": lambda docs: parameter(docs, "top_k").update(required=True),
    "the query parameter new is required now": lambda docs: asked(docs)["parameters"].append(NEEDED),
    "top_k: maximum is 10, and was 100": lambda docs: parameter(docs, "top_k")["schema"].update(maximum=10),
    "top_k: type is 'string'": lambda docs: parameter(docs, "top_k")["schema"].update(type="string"),
    "a body of video/* is not taken": lambda docs: asked(docs)["requestBody"]["content"].pop("video/*"),
    "does not answer 200 any more": lambda docs: asked(docs)["responses"].pop("200"),
    "json is not answered": lambda docs: asked(docs)["responses"]["200"]["content"].pop("application/json"),
    "needs another key": lambda docs: asked(docs).update(security=[{"key": ["admin"]}]),
    "body.keep: 'client' is not taken": lambda docs: session_body(docs)["properties"]["keep"]["enum"].remove("client"),
    "body: model is required now": lambda docs: session_body(docs).update(required=["model"]),
    "Prediction.sampled is gone": lambda docs: told(docs, "Prediction")["properties"].pop("sampled"),
    "Prediction: sampled may be missing now": lambda docs: told(docs, "Prediction")["required"].remove("sampled"),
    "Scored.score: type is 'string'": lambda docs: told(docs, "Scored")["properties"]["score"].update(type="string"),
    "Prediction.action: string may be told now": lambda docs: told(docs, "Prediction")["properties"]["action"][
        "anyOf"
    ].append({"type": "string"}),
    "Models may be told now": lambda docs: answer(docs)["anyOf"].append({"$ref": "#/components/schemas/Models"}),
    "Prediction: type is": lambda docs: told(docs, "Prediction").update(type="array"),
    "'vanished' may be told now": lambda docs: told(docs, "Notice")["properties"]["effect"]["enum"].append("vanished"),
    "UsageDay is gone": lambda docs: docs["components"]["schemas"].pop("UsageDay"),
}


@pytest.mark.parametrize("said", BREAKING)
def test_what_breaks_a_client_is_found(said: str) -> None:
    changed = copy.deepcopy(COMMITTED)
    BREAKING[said](changed)
    found = broken(COMMITTED, changed)
    assert any(said in sentence for sentence in found), found


def grown(docs: Docs) -> Docs:
    """A route, a parameter, a field, a refusal and a kind of body more; a limit less."""
    docs["paths"]["/v1/new"] = {"get": {"responses": {}}}
    asked(docs)["parameters"].append(NEEDED | {"required": False})
    told(docs, "Prediction")["properties"]["new"] = {"type": "string"}
    told(docs, "Prediction")["required"].append("new")
    asked(docs)["responses"]["418"] = {"description": "a teapot"}
    asked(docs)["requestBody"]["content"]["video/new"] = {"schema": {}}
    parameter(docs, "top_k")["schema"]["maximum"] = 1_000
    answer(docs)["anyOf"].append({"$ref": "#/components/schemas/Models", "x-if-asked": "form"})
    return docs


def test_what_grows_breaks_nobody() -> None:
    assert broken(COMMITTED, grown(copy.deepcopy(COMMITTED))) == []


def test_an_answer_of_one_form_may_get_another_for_whoever_asks() -> None:
    before = copy.deepcopy(COMMITTED)
    answer(before).clear()
    answer(before)["$ref"] = "#/components/schemas/Prediction"
    assert broken(before, COMMITTED) == []
    (found,) = broken(COMMITTED, before)
    assert "Predictions is not told any more to whoever asks for it" in found


def with_more(node: Any) -> Any:
    """The same answer of a service to come: a field more in every object."""
    if isinstance(node, list):
        return [with_more(one) for one in node]
    if isinstance(node, dict):
        return {name: with_more(value) for name, value in node.items()} | {"new_field": {"of": "tomorrow"}}
    return node


def test_the_client_ignores_fields_that_it_does_not_know() -> None:
    options: Any = {"start_seconds": 0.0, "end_seconds": None, "top_k": 3, "model": MODEL.name}
    prediction = count_bytes(io.BytesIO(b"video"), **options, stop=threading.Event())
    answer = with_more(prediction.model_dump(mode="json"))
    transport = httpx2.MockTransport(lambda request: httpx2.Response(200, json=answer))
    with Client("http://service", transport=transport) as client:
        assert client.classify(b"video") == prediction

"""The service keeps to its own OpenAPI document, whatever comes: schemathesis asks it, with good and with bad data.

A real model behind a real server; every answer is checked: no 5xx, no status and no type of content that the document
does not name (of errors: problem+json alone), no body that its schemas do not allow.
"""

import functools
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from serving import decoding
from serving.database.core import Database
from serving.keyring import KeyRing
from serving.keys import create_key
from serving.labeller import Labeller
from serving.web import whole_api
from tests.running import running_service
from tests.stream_server import KEYS, Sessions, SessionSettings, Tokens, open_store
from tests.toy_jobs import Kept
from tests.toy_models import toy_checkpoint
from tests.toy_videos import write_clip
from tests.web_server import running, toy_app
from vidseq.config import Limits

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "ignored_auth",
    "unsupported_method",
)
HOOKS = Path(__file__).with_name("contract_hooks.py")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """The URL of a service with a real model, and a key for it."""
    folder = tmp_path_factory.mktemp("contract")
    labeller = Labeller(toy_checkpoint(folder / "toy"), name=None, device="cpu", limits=Limits(), sandbox=None)
    live, kept = labeller.live, SessionSettings()
    assert live is not None
    store = open_store(f"sqlite:///{folder}/sessions.db", lifetimes=kept.lifetimes, keys=KEYS)
    jobs = Kept(Database(f"sqlite://{folder}/vidseq.db"), folder)
    app = toy_app(
        labeller.classify,
        sessions=Sessions(live, store=store, tokens=Tokens(KEYS), settings=kept),
        decode=functools.partial(decoding.decode, picture=labeller.picture, limits=Limits()),
        keys=KeyRing(folder / "keys.db"),
        uploads=jobs.uploads,
        jobs=jobs.jobs,
        body_grace_seconds=2.0,
    )
    key = create_key(folder / "keys.db", name="all", scopes=["classify", "stream"], lifetime_seconds=None)
    with running(app) as url:
        yield url, key


@pytest.mark.slow
def test_every_answer_is_one_that_the_document_names(service: tuple[str, str], tmp_path: Path) -> None:
    assert_kept(*service, folder=tmp_path)


@pytest.mark.cluster
@pytest.mark.slow
def test_so_is_every_answer_through_serves_proxy_from_a_model_with_its_sandbox(tmp_path: Path) -> None:
    key = create_key(tmp_path / "keys.db", name="all", scopes=["classify", "stream"], lifetime_seconds=None)
    with running_service(toy_checkpoint(tmp_path / "toy"), "--keys", f"{tmp_path}/keys.db") as service:
        assert_kept(service.url, key, folder=tmp_path)


def assert_kept(url: str, key: str, *, folder: Path) -> None:
    told, report = asked(url, key, folder=folder)
    assert (told.returncode, report["failures"], report["errors"]) == (0, [], []), told.stdout[-6000:]
    num_operations = sum(len(verbs) for verbs in whole_api()["paths"].values())
    assert report["operations"]["tested"] == num_operations
    assert report["test_cases"]["generated"] > 30 * num_operations
    assert report["valid_rates"]["POST /v1/classify"]["fuzzing"]["accepted"] > 0
    print({name: report[name] for name in ("operations", "test_cases", "running_time")})


def asked(url: str, key: str, *, folder: Path) -> tuple["subprocess.CompletedProcess[str]", dict[str, Any]]:
    """What schemathesis says of the service, and its report."""
    report = folder / "report.json"
    clip = write_clip(folder / "clip.mp4")
    told = subprocess.run(
        [
            *(Path(sys.executable).with_name("schemathesis"), "run", f"{url}/openapi.json"),
            *("-H", f"Authorization: Bearer {key}", "--checks", ",".join(CHECKS)),
            *("--phases", "examples,coverage,fuzzing", "--max-examples", "15"),
            *("--seed", "5", "--generation-database", "none", "--no-shrink", "--continue-on-failure"),
            *("--no-color", "--request-timeout", "60", "--report", "json", "--report-json-path", report),
        ],
        capture_output=True,
        text=True,
        timeout=280,
        cwd=folder,
        env=os.environ | {"SCHEMATHESIS_HOOKS": str(HOOKS), "CONTRACT_CLIP": str(clip)},
    )
    assert report.exists(), told.stdout + told.stderr
    return told, json.loads(report.read_text())

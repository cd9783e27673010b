"""Content-Digest: a body that is not what its sender digested gets no label, but a problem."""

import base64
import hashlib
import os
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from serving.digest import ContentDigest
from serving.problems import DigestMismatch, MalformedDigest
from tests.test_web import CLASSIFY, FORM, RAW, answer_on, connect, form, head, part, problem_of
from tests.web_server import count_bytes, running, toy_app
from vidseq.schemas import Prediction

BODY = os.urandom(300_000)


def digest(body: bytes, algorithm: str = "sha-256") -> str:
    found = hashlib.new(algorithm.replace("-", ""), body).digest()
    return f"{algorithm}=:{base64.b64encode(found).decode()}:"


def flipped(body: bytes, at: int) -> bytes:
    return body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :]


@pytest.fixture(scope="module")
def asked() -> list[int]:
    """How often the callable behind the service was asked for a label."""
    return []


@pytest.fixture(scope="module")
def url(asked: list[int]) -> Iterator[str]:
    def classify(*video: Any, **options: Any) -> Prediction:
        asked.append(1)
        return count_bytes(*video, **options)

    with running(toy_app(classify)) as url:
        yield url


def post(url: str, body: Any, header: str, kind: dict[str, str] = RAW) -> httpx2.Response:
    return httpx2.post(url + CLASSIFY, content=body, headers=kind | {"Content-Digest": header}, timeout=20)


# The header


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [digest(BODY)],
        [digest(BODY, "sha-512")],
        [f"{digest(BODY)}, {digest(BODY, 'sha-512')}"],
        [digest(BODY), "md5=:AAAA:"],
        [f"  unixsum=:{'A' * 8}:;a=1,\t{digest(BODY)};why=none "],
        [digest(b"other"), digest(BODY)],  # of one key the last value counts
    ],
)
def test_a_digest_of_the_body_passes_in_any_company(headers: list[str]) -> None:
    checked = ContentDigest(headers)
    for start in range(0, len(BODY), 70_000):
        checked.update(BODY[start : start + 70_000])
    checked.check()


@pytest.mark.parametrize(
    "declared", [digest(b"x"), digest(b"x", "sha-512"), f"{digest(BODY)}, {digest(b'', 'sha-512')}"]
)
def test_one_wrong_digest_is_enough(declared: str) -> None:
    checked = ContentDigest([declared])
    checked.update(BODY)
    with pytest.raises(DigestMismatch, match="Content-Digest is sha-"):
        checked.check()


@pytest.mark.parametrize(
    ("header", "sentence"),
    [
        ("", "cannot be read at ''"),
        ("sha-256", "it looks like"),
        (hashlib.sha256(BODY).hexdigest(), "it looks like"),
        (digest(BODY).replace(":", '"'), "it looks like"),
        (f"{digest(BODY)},", "cannot be read at ''"),
        (digest(BODY).upper(), "it looks like"),
        ("sha-256=:AAAAA:", "no base64 for sha-256"),
        ("sha-256=::", "0 bytes for sha-256, which has 32"),
        (digest(BODY).replace("256", "512"), "32 bytes for sha-512, which has 64"),
        ("md5=:AAAA:, crc32c=:AAAA:", "is of crc32c, md5; send sha-256 or sha-512"),
    ],
)
def test_a_header_that_cannot_be_used_is_said(header: str, sentence: str) -> None:
    with pytest.raises(MalformedDigest) as caught:
        ContentDigest([header])
    assert sentence in str(caught.value)


# The service


def test_a_body_that_is_what_was_digested_is_answered(url: str) -> None:
    assert post(url, BODY, digest(BODY)).json()["action"]["label"] == "300000 bytes"
    pieces = (BODY[start : start + 999] for start in range(0, len(BODY), 999))
    assert post(url, pieces, digest(BODY)).json()["action"]["label"] == "300000 bytes"


@pytest.mark.parametrize("at", [0, 123_456, 299_999])
def test_a_body_with_one_other_bit_gets_a_problem_and_no_label(url: str, asked: list[int], at: int) -> None:
    before = len(asked)
    problem = problem_of(post(url, flipped(BODY, at), digest(BODY)))
    assert (problem.status, problem.type, problem.retryable) == (400, "body/digest_mismatch", True)
    assert digest(BODY) in problem.detail
    assert len(asked) == before


def test_of_a_form_the_digest_is_that_of_the_whole_body(url: str) -> None:
    whole = form(part("file", BODY))
    assert post(url, whole, digest(whole), FORM).json()["action"]["label"] == "300000 bytes"
    assert problem_of(post(url, whole, digest(BODY), FORM)).type == "body/digest_mismatch"
    assert problem_of(post(url, flipped(whole, 1000), digest(whole), FORM)).type == "body/digest_mismatch"


def test_an_empty_body_of_another_digest_is_a_mismatch(url: str) -> None:
    assert problem_of(post(url, b"", digest(BODY))).type == "body/digest_mismatch"
    assert problem_of(post(url, b"", digest(b""))).type == "video/empty"


def test_a_header_that_cannot_be_read_is_refused_before_the_body(url: str) -> None:
    with connect(url) as connection:
        connection.sendall(head("Content-Type: video/mp4\r\nContent-Length: 1000\r\nContent-Digest: sha-256=abc"))
        status, problem = answer_on(connection)
    assert (status, problem["type"]) == (400, "body/digest_malformed")

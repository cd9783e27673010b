"""What the OpenAPI page cannot see in the code: raw and multipart bodies, problems. Knows no routes."""

import http
from typing import Any

from pydantic import BaseModel

from serving.accept import LINES_TYPE
from serving.form import FILE_FIELD
from serving.guard import NEEDS, part_of
from serving.problems import MEDIA_TYPE
from vidseq.messages import FRAMES_TYPE
from vidseq.schemas import Problem

Docs = dict[str, Any]

BINARY: Docs = {"type": "string", "format": "binary"}
VIDEO_BODY: Docs = {
    "required": True,
    "description": "The video: MP4/MOV, Matroska/WebM, AVI or MPEG-TS.",
    "content": {
        "application/octet-stream": {"schema": BINARY},
        "video/*": {"schema": BINARY},
        "multipart/form-data": {
            "schema": {"type": "object", "required": [FILE_FIELD], "properties": {FILE_FIELD: BINARY}}
        },
    },
}
CONTENT_DIGEST: Docs = {
    "name": "Content-Digest",
    "in": "header",
    "required": False,
    "description": "The SHA-256 or SHA-512 of the body as it is sent, of a form the whole of it (RFC 9530). Where the "
    "body that came is another, the answer is the problem `body/digest_mismatch` (400) and no label; where the header "
    "cannot be read or names neither algorithm, `body/digest_malformed` (400). Other algorithms beside are ignored.",
    "schema": {"type": "string"},
    "example": "sha-256=:X48E9qOokqqrvdts8nOJRJN3OWDUoyWxBf7kbu9DBPE=:",
}
IDEMPOTENCY_KEY: Docs = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "A name for this request, made up by its sender and used for no other, such as a UUID. However "
    "often it is sent under this name, by the holder of one API key, there is one answer. That is kept for 24 hours "
    "(of a job as long as the job) and given again, with `Idempotency-Replayed: true`. While it is executed, another "
    "hears `idempotency/running` (409); with another video, other options or another model, `idempotency/mismatch` "
    "(422). What is not final is not kept: 408, 429, 5xx. Not for application/x-ndjson (422).",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[ -~]+$"},
    "example": "7f1c0f7e-3f0c-4a4e-9a57-1d0a52b6b0c4",
}
ONCE: Docs = {
    "headers": {
        "Idempotency-Replayed": {
            "description": "true: this answer was given before, to the same Idempotency-Key.",
            "schema": {"type": "string", "enum": ["true"]},
        },
        "Idempotency-Kept": {
            "description": "false: the answer is too large to be kept, and the same Idempotency-Key executes again.",
            "schema": {"type": "string", "enum": ["false"]},
        },
    }
}
LINES: Docs = {
    "content": {
        LINES_TYPE: {
            "schema": {
                "type": "string",
                "description": "With Accept: application/x-ndjson, labels as they are made. Each line is a message: "
                "`applied` for each piece of the video, then `final`, or `failed` with a problem.",
            }
        }
    }
}
PUSH_BODY: Docs = {
    "required": True,
    "description": "Frames, each a line of JSON and its bytes (see docs/streaming.md); or one image, with ?seconds=.",
    "content": {name: {"schema": BINARY} for name in (FRAMES_TYPE, "image/jpeg", "image/png", "image/webp")},
}
UPLOAD_BODY: Docs = {
    "required": True,
    "description": "The bytes that follow those that are there.",
    "content": {"application/offset+octet-stream": {"schema": BINARY}},
}
_BYTES: Docs = {"type": "integer", "minimum": 0}
UPLOAD_OFFSET: Docs = {
    "headers": {"Upload-Offset": {"description": "how many bytes are there", "schema": _BYTES}},
}
UPLOAD_STANDING: Docs = {
    "headers": {
        **UPLOAD_OFFSET["headers"],
        "Upload-Length": {"description": "how many bytes were declared", "schema": _BYTES},
    }
}
UPLOAD_MADE: Docs = {
    "headers": {"Location": {"description": "the path of the upload", "schema": {"type": "string"}}},
}
DESCRIPTION = """
`WS /v1/streams` labels a stream while it is being sent: pictures with their times, or the bytes of a video.
OpenAPI cannot describe a WebSocket: its messages, closing codes and the way to resume are in `docs/streaming.md`.
"""
KEY_SCHEME: Docs = {
    "type": "http",
    "scheme": "bearer",
    "bearerFormat": "vsk_ID_SECRET",
    "description": "A key that `vidseq keys create` printed. A service that was started without keys asks for none.",
}
IF_ASKED = "x-if-asked"  # beside one of the forms of an answer: the parameter without which nobody is told it
PROMETHEUS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
PROMETHEUS_TEXT: Docs = {"content": {"text/plain": {"schema": {"type": "string"}}}}


def problem_responses(*statuses: int) -> dict[int | str, Docs]:
    """The `responses` of a route that may answer with these problems."""
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {status: {"description": http.HTTPStatus(status).phrase, "content": content} for status in statuses}


def json_body(model: type[BaseModel]) -> Docs:
    """A body that is read by hand, because its size is bounded before it is parsed."""
    schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
    return {"required": True, "content": {"application/json": {"schema": _inlined(schema)}}}


def _inlined(schema: Docs) -> Docs:
    """Without references, for FastAPI collects only those of models that routes return."""
    definitions = schema.pop("$defs", {})

    def resolve(node: Any) -> Any:
        if isinstance(node, list):
            return [resolve(item) for item in node]
        if not isinstance(node, dict):
            return node
        name = str(node.get("$ref", "")).rpartition("/")[2]
        return resolve(definitions[name]) if name else {key: resolve(value) for key, value in node.items()}

    return dict(resolve(schema))


def with_keys(document: Docs, *, prefix: str) -> Docs:
    """What the guard asks of whoever calls each route, and answers where it is not given."""
    document["components"]["securitySchemes"] = {"key": KEY_SCHEME}
    for path, verbs in document["paths"].items():
        part = part_of(path, prefix=prefix)
        if part is None:
            continue
        needed = NEEDS[part]
        refusals = problem_responses(401, 429, 503) if needed is None else problem_responses(401, 403, 429, 503)
        for route in verbs.values():
            told = {str(status): words for status, words in refusals.items()} | route["responses"]
            route["responses"] = dict(sorted(told.items()))
            route["security"] = [{"key": [] if needed is None else [needed]}]
    return document


def with_forms(document: Docs) -> Docs:
    """Of the forms of a Prediction that of several models comes to whoever asks several."""
    answer = document["paths"]["/v1/classify"]["post"]["responses"]["200"]["content"]["application/json"]
    of_one, of_several = answer["schema"]["anyOf"]
    answer["schema"]["anyOf"] = [of_one, of_several | {IF_ASKED: "model"}]
    return document


def with_problem_schema(document: Docs) -> Docs:
    """FastAPI knows the models that routes return; no route returns a problem."""
    document["components"]["schemas"]["Problem"] = Problem.model_json_schema()
    return document

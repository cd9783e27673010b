"""What the OpenAPI page cannot see in the code: raw and multipart bodies, problems. Knows no routes."""

import http
from typing import Any

from serving.form import FILE_FIELD
from serving.problems import MEDIA_TYPE
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
PROMETHEUS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
PROMETHEUS_TEXT: Docs = {"content": {"text/plain": {"schema": {"type": "string"}}}}


def problem_responses(*statuses: int) -> dict[int | str, Docs]:
    """The `responses` of a route that may answer with these problems."""
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {status: {"description": http.HTTPStatus(status).phrase, "content": content} for status in statuses}


def with_problem_schema(document: Docs) -> Docs:
    """FastAPI knows the models that routes return; no route returns a problem."""
    document["components"]["schemas"]["Problem"] = Problem.model_json_schema()
    return document

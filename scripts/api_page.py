"""The two tables of docs/api.md that the code knows better: routes, and problems. Knows no other word of that page."""

import re
from collections.abc import Iterator
from typing import Any

from serving import problems
from vidseq.errors import VidseqError

Docs = dict[str, Any]
STREAMS = "| `WS /v1/streams` | `stream` | 101 | as closing codes: [streaming.md](streaming.md) |"


def with_tables(page: str, document: Docs) -> str:
    """The page, with both tables as they are now, each between a comment with its name and `<!-- end -->`."""
    for name, lines in (("routes", _routes(document)), ("problems", _problems())):
        table = "\n".join(lines)
        page, num_found = re.subn(
            rf"(<!-- {name}\b[^>]*-->\n).*?(<!-- end -->)", rf"\g<1>{table}\n\g<2>", page, flags=re.DOTALL
        )
        assert num_found == 1, f"docs/api.md has {num_found} places for {name}"
    return page


def _routes(document: Docs) -> Iterator[str]:
    yield from ("| route | key | answers | refuses |", "|---|---|---|---|")
    for path, verbs in document["paths"].items():
        for verb, route in verbs.items():
            good, bad = _split(route["responses"])
            yield f"| `{verb.upper()} {path}` | {_key(route)} | {good} | {bad} |"
    yield STREAMS


def _split(statuses: Docs) -> tuple[str, str]:
    good = [status for status in statuses if status < "400"]
    return " ".join(good), " ".join(sorted(set(statuses) - set(good)))


def _key(route: Docs) -> str:
    if "security" not in route:
        return "none"
    scopes = route["security"][0]["key"]
    return f"`{scopes[0]}`" if scopes else "any"


def _problems() -> Iterator[str]:
    yield from ("| `type` | status | what it says | again? |", "|---|---|---|---|")
    for (status, kind), title in sorted(problem_types().items()):
        again = "yes" if status in problems.RETRYABLE or kind in problems.RETRYABLE_TYPES else ""
        yield f"| `{kind}` | {status} | {title} | {again} |"


def problem_types() -> dict[tuple[int, str], str]:
    """All that the table of serving.problems can make of errors of ours: by status and type, its title."""
    found = dict[tuple[int, str], str]()
    kinds = {subclass for parent in problems.TABLE for subclass in _with_subclasses(parent)}
    for kind in [kind for kind in kinds if kind.__module__.startswith(("serving.", "vidseq."))]:
        status, title = next(problems.TABLE[parent] for parent in kind.__mro__ if parent in problems.TABLE)
        found[status, kind.code] = title
    return found


def _with_subclasses(kind: type[VidseqError]) -> Iterator[type[VidseqError]]:
    yield kind
    for subclass in kind.__subclasses__():
        yield from _with_subclasses(subclass)

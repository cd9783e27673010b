"""The description of the API that is committed, docs/openapi.json: written anew, but not where it would break somebody.

    make openapi                     also writes the tables of docs/api.md; refuses where a client of /v1 could notice
    make openapi ARGS=--breaking     writes it all the same: for a new /v2, or a mistake of one commit

What the promise is stands in docs/api.md. Both documents are walked side by side. What is asked (parameters, bodies)
may ask for less and take more; what is told (answers) may tell more, and nothing else of what it tells. A form of an
answer that is told to whoever asks for it (`x-if-asked`) may come.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parents[1] / "docs"
PATH, PAGE = DOCS / "openapi.json", DOCS / "api.md"
IF_ASKED = "x-if-asked"  # as serving.openapi writes it
FIXED = ("type", "$ref", "format", "const", "pattern")
LEAST = ("minimum", "exclusiveMinimum", "minLength", "minItems")
MOST = ("maximum", "exclusiveMaximum", "maxLength", "maxItems")

Docs = dict[str, Any]


def text(document: Docs) -> str:
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def broken(before: Docs, after: Docs) -> list[str]:
    """What a client that was written for `before` could stumble over, a sentence each."""
    return [*_broken_routes(before["paths"], after["paths"]), *_broken_components(before, after)]


def _broken_routes(before: Docs, after: Docs) -> Iterator[str]:
    for path, verbs in before.items():
        for verb, old in verbs.items():
            name = f"{verb.upper()} {path}"
            new = after.get(path, {}).get(verb)
            if new is None:
                yield f"{name} is gone"
                continue
            yield from _broken_parameters(old, new, name)
            yield from _broken_body(old, new, name)
            yield from _broken_answers(old, new, name)
            if old.get("security") != new.get("security"):
                yield f"{name} needs another key"


def _broken_parameters(before: Docs, after: Docs, name: str) -> Iterator[str]:
    old, new = ({(one["in"], one["name"]): one for one in side.get("parameters", ())} for side in (before, after))
    for place, parameter in old.items():
        if place not in new:
            yield f"{name}: the {place[0]} parameter {place[1]} is gone"
        else:
            yield from _narrowed(parameter["schema"], new[place]["schema"], f"{name} {place[1]}")
    for place, parameter in new.items():
        needed_before = place in old and old[place].get("required", False)
        if parameter.get("required", False) and not needed_before:
            yield f"{name}: the {place[0]} parameter {place[1]} is required now"


def _broken_body(before: Docs, after: Docs, name: str) -> Iterator[str]:
    old, new = before.get("requestBody", {}), after.get("requestBody", {})
    if new.get("required", False) and not old.get("required", False):
        yield f"{name}: a body is required now"
    for kind, content in old.get("content", {}).items():
        if kind not in new.get("content", {}):
            yield f"{name}: a body of {kind} is not taken any more"
        else:
            yield from _narrowed(content["schema"], new["content"][kind]["schema"], f"{name} body")


def _broken_answers(before: Docs, after: Docs, name: str) -> Iterator[str]:
    """Successes: which refusals there are may change."""
    for status, answer in before["responses"].items():
        if not status.startswith("2"):
            continue
        there = after["responses"].get(status)
        if there is None:
            yield f"{name} does not answer {status} any more"
            continue
        for kind, content in answer.get("content", {}).items():
            if kind not in there.get("content", {}):
                yield f"{name} {status}: {kind} is not answered any more"
            else:
                yield from _changed(content["schema"], there["content"][kind]["schema"], f"{name} {status}")


def _broken_components(before: Docs, after: Docs) -> Iterator[str]:
    """All of them are told: what is asked stands in its route (serving.openapi)."""
    new = after["components"]["schemas"]
    for name, schema in before["components"]["schemas"].items():
        if name not in new:
            yield f"{name} is gone"
        else:
            yield from _changed(schema, new[name], name)


def _narrowed(before: Docs, after: Docs, name: str) -> Iterator[str]:
    """Of what is asked: whatever was taken is taken still."""
    yield from _fixed(before, after, name)
    for field in sorted(set(after.get("required", ())) - set(before.get("required", ()))):
        yield f"{name}: {field} is required now"
    for word in (*LEAST, *MOST):
        bound, there = before.get(word), after.get(word)
        lower = word in LEAST
        if there is not None and (bound is None or (there > bound if lower else there < bound)):
            yield f"{name}: {word} is {there}, and was {bound}"
    if gone := set(before.get("enum", ())) - set(after.get("enum", before.get("enum", ()))):
        yield f"{name}: {sorted(gone)[0]!r} is not taken any more"
    if "enum" in after and "enum" not in before:
        yield f"{name}: not everything is taken any more"
    if gone_kinds := _kinds(before).keys() - _kinds(after).keys():
        yield f"{name}: {sorted(gone_kinds)[0]} is not taken any more"
    for part, old, new in _parts(before, after):
        if new is None:
            yield f"{name}.{part} is gone"
        else:
            yield from _narrowed(old, new, f"{name}.{part}")


def _changed(before: Docs, after: Docs, name: str) -> Iterator[str]:
    """Of what is told: whatever was told is told still, and is what it was."""
    forms = {kind for kind, one in _kinds(before).items() if IF_ASKED in one}
    if gone := forms - _kinds(after).keys():
        yield f"{name}: {sorted(gone)[0]} is not told any more to whoever asks for it"
    before, after = _unasked(before), _unasked(after)
    yield from _fixed(before, after, name)
    for field in sorted(set(before.get("required", ())) - set(after.get("required", ()))):
        yield f"{name}: {field} may be missing now"
    if new_words := set(after.get("enum", before.get("enum", ()))) - set(before.get("enum", after.get("enum", ()))):
        yield f"{name}: {sorted(new_words)[0]!r} may be told now"
    if new_kinds := _kinds(after).keys() - _kinds(before).keys():
        yield f"{name}: {sorted(new_kinds)[0]} may be told now"
    for part, old, new in _parts(before, after):
        if new is None:
            yield f"{name}.{part} is gone"
        else:
            yield from _changed(old, new, f"{name}.{part}")


def _unasked(schema: Docs) -> Docs:
    """What is told to whoever does not ask for another form: a client that was written before does not ask."""
    every = schema.get("anyOf", [])
    forms = [one for one in every if IF_ASKED not in one]
    if len(forms) == len(every):
        return schema
    return forms[0] if len(forms) == 1 else schema | {"anyOf": forms}


def _fixed(before: Docs, after: Docs, name: str) -> Iterator[str]:
    for word in FIXED:
        if before.get(word) != after.get(word):
            yield f"{name}: {word} is {after.get(word)!r}, and was {before.get(word)!r}"


def _parts(before: Docs, after: Docs) -> Iterator[tuple[str, Docs, Docs | None]]:
    """What stands below both: fields, members of a list, kinds that both may be. A kind that is gone is no part."""
    for field, old in before.get("properties", {}).items():
        yield field, old, after.get("properties", {}).get(field)
    if "items" in before:
        yield "items", before["items"], after.get("items")
    there = _kinds(after)
    for kind, old in _kinds(before).items():
        if kind in there:
            yield kind, old, there[kind]


def _kinds(schema: Docs) -> dict[str, Docs]:
    """What it may be, each under what tells it from the others: `number` or `null`, or the name of a component."""
    several = [one for word in ("anyOf", "oneOf") for one in schema.get(word, ())]
    return {str(one.get("$ref", one.get("const", one.get("type", "anything")))): one for one in several}


def main(*, breaking: bool) -> int:
    from scripts.api_page import with_tables
    from serving.web import whole_api

    document = whole_api()
    before = json.loads(PATH.read_text()) if PATH.exists() else document
    if (found := broken(before, document)) and not breaking:
        print(*found, sep="\n", file=sys.stderr)
        print("vidseq: /v1 promises that this does not happen (docs/api.md); nothing was written.", file=sys.stderr)
        return 1
    PATH.write_text(text(document), encoding="utf-8")
    PAGE.write_text(with_tables(PAGE.read_text(), document), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(breaking="--breaking" in sys.argv[1:]))

"""Who asks, and for what: whose sessions these are, from which page, which model. Knows no routes."""

import hashlib
from collections.abc import Collection, Mapping
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection

from serving.keys import Scope as KeyScope
from serving.parts import Sessions
from serving.problems import ForeignOrigin
from vidseq.errors import ModelNotFound, OfflineOnly
from vidseq.schemas import ModelInfo, Models


def owner_of(connection: HTTPConnection) -> str:
    """Whose sessions these are: a session answers its owner only.

    The id of the key with which the guard has let somebody in. A service that is open to all has no guard: there it is
    a hash of what somebody calls himself in the header Authorization, "" for nobody in particular.
    """
    key_id = key_of(connection)
    if key_id is not None:
        return key_id
    said = connection.headers.get("authorization")
    return "" if said is None else hashlib.sha256(said.encode()).hexdigest()


def scopes_of(connection: HTTPConnection) -> Collection[KeyScope] | None:
    """What the key is good for with which the guard has let somebody in; None where there is no guard."""
    scopes: Collection[KeyScope] | None = connection.scope["state"].get("scopes")
    return scopes


def key_of(connection: HTTPConnection) -> str | None:
    """The id of the key with which the guard has let somebody in; None where there is no guard, whatever was said."""
    key_id: str | None = connection.scope["state"].get("owner")
    return key_id


def refuse_foreign_page(headers: Mapping[str, str], allowed_origins: Collection[str]) -> None:
    """A browser lets any page open a WebSocket to any address, and says from which page.

    No cookie tells us who somebody is, so there is nobody's name to misuse. But a service on a private address would
    compute for, and tell its labels to, whatever page its neighbour reads. What is no browser sends no Origin.

    Raises:
        ForeignOrigin: the page is neither of this host nor allowed.
    """
    origin = headers.get("origin")
    if origin is None or origin in allowed_origins or _host_of(origin) == headers.get("host"):
        return
    raise ForeignOrigin(f"a page of {origin[:100]!r} may not open streams here")


def _host_of(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc or None
    except ValueError:  # not a URL
        return None


def refuse_unknown(model: str | None, loaded: Models) -> ModelInfo:
    """The one that answers: of that name, or the first. Raises ModelNotFound: nothing of that name is loaded."""
    by_name = {info.name: info for info in loaded.models}
    if model is not None and model not in by_name:
        raise ModelNotFound(f"no model is named {model!r}; there are: {', '.join(by_name)}")
    return loaded.models[0] if model is None else by_name[model]


def streaming(sessions: Sessions | None) -> Sessions:
    """Raises OfflineOnly: the model cannot stream."""
    if sessions is None:
        raise OfflineOnly("this model needs the whole video before its first label: send it to POST /v1/classify")
    return sessions

"""Who asks, and for what: whose sessions these are, from which page, which model. Knows no routes."""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection

from serving.keyring import ModelForbidden
from serving.keys import Scope as KeyScope
from serving.parts import Sessions
from serving.problems import ForeignOrigin
from vidseq.errors import ModelNotFound, OfflineOnly, OptionError
from vidseq.schemas import ALL_MODELS, ModelInfo, Models


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


def models_for(connection: HTTPConnection, loaded: Models) -> Models:
    """Those of the loaded models that may be asked with the key with which the guard has let somebody in."""
    may = _may_ask(connection)
    return loaded if may is None else Models(models=tuple(info for info in loaded.models if info.name in may))


def models_asked(connection: HTTPConnection, names: Sequence[str], loaded: Models) -> tuple[ModelInfo, ...]:
    """Those that are to answer, in the order of `names`; the first that may be asked where none is named.

    Raises:
        ModelForbidden: the key may not ask a model of that name, whether there is one or not.
        ModelNotFound: nothing of that name is loaded.
        OptionError: one is named twice, or beside all.
    """
    may, offered = _may_ask(connection), models_for(connection, loaded).models
    if may is not None:
        for name in names:
            if name not in (ALL_MODELS, *may):
                raise ModelForbidden(repr(name), may)
        if not offered:
            raise ModelNotFound(f"no model that this key may ask is loaded: it may ask {', '.join(sorted(may))}")
    if not names:
        return offered[:1]
    if tuple(names) == (ALL_MODELS,):
        return offered
    by_name = {info.name: info for info in offered}
    for name in names:
        if names.count(name) > 1 or name == ALL_MODELS:
            raise OptionError(f"model: {name!r} among several; each is named once, and {ALL_MODELS!r} alone")
        if name not in by_name:
            raise ModelNotFound(f"no model is named {name!r}; there are: {', '.join(by_name)}")
    return tuple(by_name[name] for name in names)


def refuse_other_model(connection: HTTPConnection, name: str | None, loaded: Models) -> ModelInfo:
    """The model that labels streams, which is the first. Raises as `models_asked`, and OptionError: it is another."""
    first, may = loaded.models[0], _may_ask(connection)
    if name is None and may is not None and first.name not in may:
        raise ModelForbidden("the model that labels streams", may)
    if models_asked(connection, [] if name is None else [name], loaded) != (first,):
        raise OptionError("streams, and labels line by line, are of the first model: others answer for whole videos")
    return first


def is_limited(connection: HTTPConnection) -> bool:
    """Whether the key is for some models alone."""
    return _may_ask(connection) is not None


def _may_ask(connection: HTTPConnection) -> Collection[str] | None:
    models: Collection[str] | None = connection.scope["state"].get("models")
    return models


def streaming(sessions: Sessions | None) -> Sessions:
    """Raises OfflineOnly: the model cannot stream."""
    if sessions is None:
        raise OfflineOnly("this model needs the whole video before its first label: send it to POST /v1/classify")
    return sessions

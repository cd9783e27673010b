"""What is done to a service that runs: another model, and its leave. Knows nothing of signals, and starts nothing.

roll_out     every replica loads the models beside those that answer -> all have -> all take them, else none does
add_head     the same for one more model on the same backbone
remove_head  all answer with it no more
drain        unready -> for a moment all goes on -> nothing new is taken -> what goes on ends -> back
"""

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ray import serve
from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException

from serving.arguments import CONTROL, SERVICE
from serving.current import Change
from vidseq.errors import CheckpointError

LOAD_SECONDS = 600.0
ANSWER_SECONDS = 10.0
LOOK_SECONDS = 0.1
_NO_ANSWER = (RayError, RayServeException, TimeoutError)


def make(change: Change, *, switch: Callable[[], None]) -> int:
    """As the function for its kind says."""
    match change.kind:
        case "all":
            return roll_out(change.folder, also=change.also, switch=switch)
        case "add":
            return add_head(change.folder, switch=switch)
        case "remove":
            return remove_head(change.folder, switch=switch)


def roll_out(model: Path, *, also: Sequence[Path] = (), switch: Callable[[], None]) -> int:
    """Let every replica answer with the models in these folders; requests in flight end with the one they began with.

    How many replicas did not say that they took them: they have died, and come back with them, or hear of it late.

    Args:
        model: on every node, as are those of `also`.
        also: others beside it, with the same backbone; those that are not named are gone.
        switch: called when all replicas have them, before they take them: from here on those that start shall, too.

    Raises:
        CheckpointError: a replica refuses a model, and why. All go on with those they have.
    """
    return _change("model", [str(model), *map(str, also)], switch=switch)


def add_head(folder: Path, *, switch: Callable[[], None]) -> int:
    """Let every replica answer with one more model, which shares the backbone of those that answer. As `roll_out`."""
    return _change("head", [str(folder)], switch=switch)


def remove_head(folder: Path, *, switch: Callable[[], None]) -> int:
    """Let no replica answer any more with the model in this folder, which is not the first. As `roll_out`."""
    switch()
    return _tell_all("remove_head", str(folder), seconds=ANSWER_SECONDS)


def _change(what: str, folders: Sequence[str], *, switch: Callable[[], None]) -> int:
    try:
        refusals = _ask_all(SERVICE, f"prepare_{what}", *folders, seconds=LOAD_SECONDS)
    except _NO_ANSWER as error:
        refusals = [f"a replica did not say whether it can use the model: {type(error).__name__}"]
    for refusal in filter(None, refusals):
        with suppress(*_NO_ANSWER):  # it is dropped with the replica, or by the next rollout
            _ask_all(SERVICE, "drop_prepared", seconds=ANSWER_SECONDS)
        raise CheckpointError(refusal)
    switch()
    return _tell_all(f"take_{what}", *folders, seconds=LOAD_SECONDS)


def drain(*, notice_seconds: float, limit_seconds: float) -> int:
    """Let the service leave; how many requests were still going on at the end of `limit_seconds`.

    /readyz is red at once. For `notice_seconds` whoever has not looked yet is still answered.
    """
    with suppress(*_NO_ANSWER):
        _ask_all(CONTROL, "leave", seconds=ANSWER_SECONDS)
    try:
        time.sleep(notice_seconds)
        _ask_all(SERVICE, "leave", seconds=ANSWER_SECONDS)
        deadline = time.monotonic() + limit_seconds
        while (num_going_on := _num_going_on()) > 0 and time.monotonic() < deadline:
            time.sleep(LOOK_SECONDS)
        return num_going_on
    except _NO_ANSWER:  # a service that is down has nobody to wait for
        return 0


def _num_going_on() -> int:
    return sum(map(int, _ask_all(SERVICE, "num_going_on", seconds=ANSWER_SECONDS)))


def _tell_all(method: str, *arguments: str, seconds: float) -> int:
    """How many replicas of the service did not say that it is done."""
    told = serve.get_deployment_handle("Service", app_name=SERVICE).broadcast(method, *arguments)
    return sum(isinstance(result, Exception) for result in told.results(timeout_s=seconds, return_exceptions=True))


def _ask_all(application: str, method: str, *arguments: str, seconds: float) -> list[Any]:
    """What each replica answers."""
    handle = serve.get_deployment_handle(application.capitalize(), app_name=application)
    return list(handle.broadcast(method, *arguments).results(timeout_s=seconds))

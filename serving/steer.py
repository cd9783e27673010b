"""What is done to a service that runs: another model, and its leave. Knows nothing of signals, and starts nothing.

roll_out    every replica loads the model beside the one that answers -> all have -> all take it, else none does
drain       unready -> for a moment all goes on -> nothing new is taken -> what goes on ends -> back
"""

import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from ray import serve
from ray.exceptions import RayError
from ray.serve.exceptions import RayServeException

from serving.arguments import CONTROL, SERVICE
from vidseq.errors import CheckpointError

LOAD_SECONDS = 600.0
ANSWER_SECONDS = 10.0
LOOK_SECONDS = 0.1
_NO_ANSWER = (RayError, RayServeException, TimeoutError)


def roll_out(folder: Path, *, switch: Callable[[], None]) -> int:
    """Let every replica answer with the model in `folder`; requests in flight end with the one they began with.

    How many replicas did not say that they took it: they have died, and come back with it, or hear of it late.

    Args:
        folder: on every node.
        switch: called when all replicas have it, before they take it: from here on those that start shall have it, too.

    Raises:
        CheckpointError: a replica refuses the model, and why. All go on with the one they have.
    """
    try:
        refusals = _ask_all(SERVICE, "prepare_model", str(folder), seconds=LOAD_SECONDS)
    except _NO_ANSWER as error:
        refusals = [f"a replica did not say whether it can use the model: {type(error).__name__}"]
    for refusal in filter(None, refusals):
        with suppress(*_NO_ANSWER):  # it is dropped with the replica, or by the next rollout
            _ask_all(SERVICE, "drop_model", seconds=ANSWER_SECONDS)
        raise CheckpointError(refusal)
    switch()
    taken = serve.get_deployment_handle("Service", app_name=SERVICE).broadcast("take_model", str(folder))
    results = taken.results(timeout_s=LOAD_SECONDS, return_exceptions=True)
    return sum(isinstance(result, Exception) for result in results)


def drain(*, notice_seconds: float, limit_seconds: float) -> int:
    """Let the service leave; how many requests were still going on at the end of `limit_seconds`.

    /readyz is red at once. For `notice_seconds` whoever has not looked yet is still answered.
    """
    try:
        _ask_all(CONTROL, "leave", seconds=ANSWER_SECONDS)
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


def _ask_all(application: str, method: str, *arguments: str, seconds: float) -> list[Any]:
    """What each replica answers."""
    handle = serve.get_deployment_handle(application.capitalize(), app_name=application)
    return list(handle.broadcast(method, *arguments).results(timeout_s=seconds))

"""From the models that a service answers with to others, step by step, and what is said of each. Loads none itself."""

import functools
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from serving import steer
from serving.current import Current, Kind, Lineup, changes

DONE: dict[Kind, str] = {"all": "answers now", "add": "answers, too", "remove": "answers no more"}
STAYS: dict[Kind, str] = {
    "all": "the one before goes on",
    "add": "those that answer go on without it",
    "remove": "those that answer go on",
}


def roll_out(model: Path, also: Sequence[Path], *, current: Current, announce: Callable[[str], None]) -> None:
    """Let the replicas answer with what stands there now, and `current` lead there; or say on stderr why not."""
    try:
        steps = changes(current.lineup, Lineup.of(model, also))
    except (OSError, RuntimeError) as error:  # a folder that may not be read, links that lead in a circle
        _say(f"the model in {model} is refused, and the one before goes on: {error}")
        return
    for change in steps:
        switch = functools.partial(current.switch, change.made_to(current.lineup))
        try:
            num_silent = steer.make(change, switch=switch)
            silent = f"; {num_silent} replicas did not say so" * (num_silent > 0)
            announce(f"the model in {change.folder} {DONE[change.kind]}{silent}")
        except Exception as error:  # whatever it is, the service goes on
            why = str(error) or type(error).__name__
            _say(f"the model in {change.folder} is refused, and {STAYS[change.kind]}: {why}")


def _say(sentence: str) -> None:
    print(f"vidseq: {sentence}", file=sys.stderr, flush=True)

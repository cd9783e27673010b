"""From the models that a service answers with to others, step by step, and what is said of each. Loads none itself."""

import functools
import sys
from collections.abc import Callable

from serving import steer
from serving.current import Current, Kind, Lineup, changes

DONE: dict[Kind, str] = {"all": "answers now", "add": "answers, too", "remove": "answers no more"}
STAYS: dict[Kind, str] = {
    "all": "the one before goes on",
    "add": "those that answer go on without it",
    "remove": "those that answer go on",
}


def roll_out(lineup: Lineup, *, current: Current, announce: Callable[[str], None]) -> None:
    """Let the replicas answer with these models, and `current` lead there; or say why not, on standard error."""
    for change in changes(current.lineup, lineup):
        switch = functools.partial(current.switch, change.made_to(current.lineup))
        try:
            num_silent = steer.make(change, switch=switch)
            silent = f"; {num_silent} replicas did not say so" * (num_silent > 0)
            announce(f"the model in {change.folder} {DONE[change.kind]}{silent}")
        except Exception as error:  # whatever it is, the service goes on
            why = str(error) or type(error).__name__
            line = f"vidseq: the model in {change.folder} is refused, and {STAYS[change.kind]}: {why}"
            print(line, file=sys.stderr, flush=True)

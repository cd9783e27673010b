"""How many may be inside so that nobody is there for long. Knows no requests, and no clock but the one it is given.

By Little's law (J. D. C. Little, Operations Research 9(3), 1961) the number inside is the rate at which they leave
times how long each stays: to bound the stay, bound the number. How fast they leave is what a machine, a model and the
length of videos make of it, so it is measured, and forgotten again: an hour of video that kept all is not the rule.
"""

import math
import time
from collections.abc import Callable

MEMORY_SECONDS = 10.0  # of time with enough to do: what was before counts 1/e


class Waiting:
    """A number of places for a wait of at most `max_seconds`, as far as the last seconds tell. Not thread-safe.

    While fewer than `min_places` are inside there may be nothing to do, which says nothing of how fast it would be
    done: nothing is measured then, and nobody kept out.
    """

    def __init__(self, *, max_seconds: float, min_places: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._max_seconds = max_seconds
        self._min_places = min_places
        self._clock = clock
        self._num_inside = 0
        self._since = clock()
        self._busy_seconds = 0.0
        self._num_left = 0.0

    def enter(self) -> None:
        self._remember(num_left=0)
        self._num_inside += 1

    def leave(self) -> None:
        self._remember(num_left=1)
        self._num_inside -= 1

    def places(self) -> int:
        """As many as leave in `max_seconds`."""
        return max(self._min_places, int(self._max_seconds / max(self.seconds_of_one(), 1e-6)))

    def seconds_of_one(self) -> float:
        """From one who leaves to the next, as if somebody left now: where nobody has left yet, that is all we know."""
        self._remember(num_left=0)
        return self._busy_seconds / (self._num_left + 1)

    def _remember(self, *, num_left: int) -> None:
        now = self._clock()
        if self._num_inside >= self._min_places:
            passed = now - self._since
            kept = math.exp(-passed / MEMORY_SECONDS)
            self._busy_seconds = kept * self._busy_seconds + passed
            self._num_left = kept * self._num_left + num_left
        self._since = now

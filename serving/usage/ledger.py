"""What this process has done for each owner on each day, in memory, and from there in the database. Knows no requests.

    charge -> total of (owner, day)  ──every few seconds, and at the end──>  the row of (owner, day, this writer)

A row holds what one writer has counted in all, and not what came since: to write it twice, as when the first answer of
the database was lost, changes nothing, and no writer waits for another. A process that is killed takes with it what it
has not written; while the database is down, memory keeps all of it.
"""

import secrets
import threading
import time
from collections.abc import Callable
from datetime import date

from serving.usage.table import UsageTable
from serving.usage.used import Used

DAY_SECONDS = 86400
EPOCH = date(1970, 1, 1).toordinal()
Place = tuple[str, int]  # an owner, and a day since 1970 (UTC)


class Ledger:
    """A Charge. Thread-safe.

    Args:
        table: where it writes.
        by_key: owners are API keys. Without, all is counted together: what callers say who they are is not believed.
        clock: the Unix time.
    """

    def __init__(self, table: UsageTable, *, by_key: bool, clock: Callable[[], float] = time.time) -> None:
        self.table = table
        self._by_key = by_key
        self._clock = clock
        self._writer = secrets.token_hex(8)
        self._totals: dict[Place, Used] = {}
        self._unwritten: set[Place] = set()
        self._changing, self._writing = threading.Lock(), threading.Lock()

    def __call__(self, owner: str, used: Used, /) -> None:
        place = (owner if self._by_key else "", int(self._clock() // DAY_SECONDS))
        with self._changing:
            self._totals[place] = self._totals.get(place, Used()) + used
            self._unwritten.add(place)

    def flush(self) -> int:
        """Write what has changed; how many rows. Raises DatabaseDown: it is written the next time."""
        with self._writing:  # never an older total after a newer one
            with self._changing:
                rows = {place: self._totals[place] for place in self._unwritten}
                self._unwritten.clear()
            if not rows:
                return 0
            try:
                self.table.write(self._writer, {(owner, _iso(day)): used for (owner, day), used in rows.items()})
            except BaseException:
                with self._changing:
                    self._unwritten |= rows.keys()
                raise
            self._forget_old_days()
        return len(rows)

    def _forget_old_days(self) -> None:
        """Not yesterday: who counts may have looked at the clock just before midnight, and clocks are set back."""
        yesterday = int(self._clock() // DAY_SECONDS) - 1
        with self._changing:
            for place in [place for place in self._totals if place[1] < yesterday and place not in self._unwritten]:
                del self._totals[place]


def _iso(day: int) -> str:
    return date.fromordinal(EPOCH + day).isoformat()

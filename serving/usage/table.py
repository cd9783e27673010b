"""Usage in the database: written by each process for itself, read as sums, swept when it is old. Its calls block."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, timedelta

from sqlalchemy import delete, func, select, tuple_

from serving.database.core import Database
from serving.database.tables import usage_by_day
from serving.usage.used import NAMES, Used
from vidseq.config import Config, PositiveInt, PositiveSeconds

_rows = usage_by_day.c


class UsageSettings(Config):
    """How often a replica writes what it has counted, which is what a killed one loses, and how long it is kept."""

    flush_seconds: PositiveSeconds = 5.0
    kept_days: PositiveInt = 400


@dataclass(frozen=True)
class Day:
    """What one owner has used on one day (UTC)."""

    day: str
    owner: str
    used: Used


class UsageTable:
    """Thread-safe. Every method raises DatabaseDown."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def write(self, writer: str, totals: Mapping[tuple[str, str], Used]) -> None:
        """All that `writer` has counted for these (owner, day), in place of what it wrote before."""
        insert = self._database.insert(usage_by_day)
        upsert = insert.on_conflict_do_update(
            index_elements=["owner", "day", "writer"], set_={name: insert.excluded[name] for name in NAMES}
        )
        rows = [{"owner": owner, "day": day, "writer": writer} | asdict(used) for (owner, day), used in totals.items()]
        with self._database.writing() as connection:
            connection.execute(upsert, sorted(rows, key=lambda row: (row["owner"], row["day"])))

    def days(
        self,
        *,
        since: date,
        until: date,
        owner: str | None = None,
        after: tuple[str, str] | None = None,
        limit: int | None = None,
    ) -> list[Day]:
        """From `since` up to and with `until`, by day and owner; those after the (day, owner) `after`."""
        sums = [func.sum(_rows[name]).label(name) for name in NAMES]
        asked = select(_rows.day, _rows.owner, *sums).where(_rows.day.between(since.isoformat(), until.isoformat()))
        if owner is not None:
            asked = asked.where(_rows.owner == owner)
        if after is not None:
            asked = asked.where(tuple_(_rows.day, _rows.owner) > after)
        asked = asked.group_by(_rows.day, _rows.owner).order_by(_rows.day, _rows.owner).limit(limit)
        with self._database.reading() as connection:
            found = connection.execute(asked).all()
        return [Day(day, owner, _used(counts)) for day, owner, *counts in found]

    def sweep(self, *, kept_days: int) -> int:
        """Delete what is older; how many rows."""
        with self._database.writing() as connection:
            today = datetime.fromtimestamp(self._database.now(connection), UTC).date()
            oldest = (today - timedelta(days=kept_days)).isoformat()
            return connection.execute(delete(usage_by_day).where(_rows.day < oldest)).rowcount


def _used(counts: list[object]) -> Used:
    """PostgreSQL sums whole numbers as decimals."""
    *numbers, seconds = counts
    return Used(**dict(zip(NAMES, map(int, numbers), strict=False)), compute_seconds=float(seconds))  # type: ignore[arg-type]

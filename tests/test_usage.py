"""Usage by key: what was used is counted once, by whichever process, and survives the database's absence."""

import csv
import io
import json
import multiprocessing
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
from databases import *  # noqa: F403  fixtures
from sqlalchemy import update
from typer.testing import CliRunner

from serving.database.core import Database
from serving.database.errors import DatabaseDown
from serving.database.tables import usage_by_day
from serving.keys import create_key
from serving.usage.ledger import Ledger
from serving.usage.table import Day, UsageTable
from serving.usage.used import Used

SPAWN = multiprocessing.get_context("spawn")
NOON = datetime(2026, 11, 26, 12, tzinfo=UTC).timestamp()
TODAY = datetime.now(UTC).date()
FOREVER = {"since": date(2000, 1, 1), "until": date(2100, 1, 1)}


@pytest.fixture
def table(database_url: str) -> Iterator[UsageTable]:
    with closing(Database(database_url)) as database:
        yield UsageTable(database)


def used_by(table: UsageTable, owner: str) -> list[Used]:
    return [day.used for day in table.days(**FOREVER, owner=owner)]


# Counting ----------------------------------------------------------------------------------------


def test_what_was_counted_is_written_as_one_sum(table: UsageTable) -> None:
    ledger = Ledger(table, by_key=True, clock=lambda: NOON)
    ledger("ann", Used(requests=1, received_bytes=1000))
    ledger("ann", Used(frames_labelled=8, compute_seconds=0.25))
    ledger("ben", Used(requests=1, failed=1))
    assert ledger.flush() == 2
    ann = Used(requests=1, received_bytes=1000, frames_labelled=8, compute_seconds=0.25)
    assert table.days(**FOREVER) == [
        Day("2026-11-26", "ann", ann),
        Day("2026-11-26", "ben", Used(requests=1, failed=1)),
    ]


def test_what_comes_later_is_added_and_nothing_twice(table: UsageTable) -> None:
    ledger = Ledger(table, by_key=True)
    for _ in range(3):
        ledger("ann", Used(requests=1))
        ledger.flush()
        assert ledger.flush() == 0
    assert used_by(table, "ann") == [Used(requests=3)]


def test_a_write_whose_answer_was_lost_may_be_repeated(table: UsageTable) -> None:
    for _ in range(2):
        table.write("a writer", {("ann", "2026-11-26"): Used(requests=5, compute_seconds=1.5)})
    assert used_by(table, "ann") == [Used(requests=5, compute_seconds=1.5)]


def test_each_day_counts_for_itself_and_a_day_that_is_long_over_is_forgotten_here(table: UsageTable) -> None:
    now = [NOON]
    ledger = Ledger(table, by_key=True, clock=lambda: now[0])
    for num_requests in (1, 2, 3):
        ledger("ann", Used(requests=num_requests))
        ledger.flush()
        now[0] += 86400
    found = [(day.day, day.used.requests) for day in table.days(**FOREVER)]
    assert found == [("2026-11-26", 1), ("2026-11-27", 2), ("2026-11-28", 3)]
    assert [day for _, day in ledger._totals] == [int(NOON // 86400) + 1, int(NOON // 86400) + 2]


def test_what_is_counted_late_is_added_to_its_day(table: UsageTable) -> None:
    """By a clock that was set back, or by who had looked at it before midnight."""
    now = [NOON]
    ledger = Ledger(table, by_key=True, clock=lambda: now[0])
    for day in (0, 1, 0):
        now[0] = NOON + day * 86400
        ledger("ann", Used(requests=1))
        ledger.flush()
    assert [(day.day, day.used.requests) for day in table.days(**FOREVER)] == [("2026-11-26", 2), ("2026-11-27", 1)]


def count_at(url: str, barrier: Any) -> None:
    with closing(Database(url)) as database:
        ledger = Ledger(UsageTable(database), by_key=True, clock=lambda: NOON)
        barrier.wait()
        for _ in range(20):
            ledger("ann", Used(requests=1, received_bytes=10))
            ledger.flush()


def test_of_several_processes_all_is_counted(database_url: str, table: UsageTable) -> None:
    barrier = SPAWN.Barrier(2)
    processes = [SPAWN.Process(target=count_at, args=(database_url, barrier)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(200)
    assert [process.exitcode for process in processes] == [0, 0]
    assert used_by(table, "ann") == [Used(requests=40, received_bytes=400)]


def test_numbers_of_any_size_come_back_whole(table: UsageTable) -> None:
    large = Used(requests=2**40, failed=1, received_bytes=2**55, frames_decoded=2**33, compute_seconds=1e6)
    for writer in ("one", "other"):
        table.write(writer, {("ann", "2026-11-26"): large})
    assert used_by(table, "ann") == [large + large]


def test_what_could_not_be_written_is_written_when_the_database_is_back(tmp_path: Path) -> None:
    folder = tmp_path / "later"
    ledger = Ledger(UsageTable(Database(f"sqlite://{folder}/vidseq.db")), by_key=True)
    ledger("ann", Used(requests=1))
    with pytest.raises(DatabaseDown):
        ledger.flush()
    ledger("ann", Used(requests=1))
    folder.mkdir()
    ledger.flush()
    assert used_by(ledger.table, "ann") == [Used(requests=2)]


def test_rows_that_are_too_old_are_swept(table: UsageTable) -> None:
    table.write("a writer", {("ann", "2020-01-01"): Used(requests=1), ("ann", str(TODAY)): Used(requests=2)})
    assert table.sweep(kept_days=400) == 1
    assert used_by(table, "ann") == [Used(requests=2)]


def test_days_are_read_page_by_page(table: UsageTable) -> None:
    days = ["2026-11-25", "2026-11-26"]
    table.write("w", {(owner, day): Used(requests=1) for owner in ("ann", "ben", "cay") for day in days})
    first = table.days(**FOREVER, limit=4)
    rest = table.days(**FOREVER, after=(first[-1].day, first[-1].owner))
    assert [(day.day[-2:], day.owner) for day in first] == [("25", "ann"), ("25", "ben"), ("25", "cay"), ("26", "ann")]
    assert [(day.day[-2:], day.owner) for day in rest] == [("26", "ben"), ("26", "cay")]


# The command line ----------------------------------------------------------------------------------


def cli(*words: str) -> tuple[int, str]:
    from vidseq.cli import app  # not for the processes of the race

    done = CliRunner(env={"COLUMNS": "200", "NO_COLOR": "1"}).invoke(app, ["usage", *words])
    return done.exit_code, done.output + str(done.exception or "")


@pytest.fixture
def counted(database_url: str, table: UsageTable) -> str:
    table.write("a writer", {("0123456789ab", "2026-11-26"): Used(requests=1234, compute_seconds=1.5)})
    return database_url


def test_the_command_shows_usage_with_names(counted: str, tmp_path: Path) -> None:
    key = create_key(tmp_path / "keys.db", name="anna", scopes=["classify"], lifetime_seconds=None)
    with closing(Database(counted)) as database, database.writing() as connection:
        connection.execute(update(usage_by_day).values(owner=key[4:16]))
    code, said = cli(counted, "--since", "2026-11-01", "--until", "2026-11-30", "--keys", f"{tmp_path}/keys.db")
    assert code == 0
    assert [word in said for word in (key[4:16], "anna", "1,234", "labelled")] == [True] * 4, said
    assert max(map(len, said.splitlines())) <= 80


def test_the_command_writes_json_and_csv(counted: str) -> None:
    span = ("--since", "2026-11-01", "--until", "2026-11-30")
    (row,) = json.loads(cli(counted, *span, "--json")[1])
    (line,) = csv.DictReader(io.StringIO(cli(counted, *span, "--csv")[1]))
    assert (row["key"], row["requests"], row["compute_seconds"]) == ("0123456789ab", 1234, 1.5)
    assert line == {name: str(value) for name, value in row.items()}


def test_a_csv_of_days_on_which_nothing_was_used_has_its_header(counted: str) -> None:
    none, some = (cli(counted, "--since", day, "--until", day, "--csv")[1] for day in ("2020-01-01", "2026-11-26"))
    assert none.splitlines() == some.splitlines()[:1] != []


def test_the_command_makes_no_database_where_none_is(tmp_path: Path) -> None:
    code, said = cli(f"sqlite://{tmp_path}/none.db")
    assert (code != 0, "there is no file at" in said, list(tmp_path.iterdir())) == (True, True, [])

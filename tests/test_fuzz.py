"""Mutants of clips: made again by their numbers, counted for what they are, and harmless to the service."""

import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from benchmarks.fuzz import Place, is_silent, toys
from tests.mutants import CHANGES, mutant
from vidseq.schemas import VideoReport

ROOT = Path(__file__).resolve().parents[1]
SEED = 20261126  # as CI's


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    return toys(tmp_path_factory.mktemp("clips"))


def report(
    *, declared: int = 40, decoded: int = 40, complete: bool = True, warnings: tuple[str, ...] = ()
) -> VideoReport:
    return VideoReport(
        width=96,
        height=64,
        codec="h264",
        container="mp4",
        duration_seconds=declared / 10,
        frames_declared=declared,
        frames_decoded=decoded,
        complete=complete,
        warnings=warnings,
    )


def times(count: int) -> list[float]:
    return [index / 10 for index in range(count)]


def test_the_same_seed_and_number_make_the_same_mutant(clips: list[bytes]) -> None:
    first, second = ([mutant(clips, seed=1, number=number) for number in range(100)] for _ in range(2))
    assert first == second
    assert len({made.data for made in first}) > 90
    assert first != [mutant(clips, seed=2, number=number) for number in range(100)]


def test_every_kind_of_change_is_made_and_most_change_something(clips: list[bytes]) -> None:
    made = [mutant(clips, seed=1, number=number) for number in range(300)]
    kinds = {name for each in made for name in each.done.split(", ")}
    assert kinds == {change.__name__.strip("_") for change in CHANGES} | {"splice"}
    assert sum(each.data == clips[each.clip] for each in made) < 30


def test_less_than_is_declared_without_a_word_is_silent() -> None:
    assert is_silent(report(decoded=20), times(20))
    assert not is_silent(report(decoded=20, complete=False), times(20))
    assert not is_silent(report(decoded=20, warnings=("the decoder complained once",)), times(20))


def test_what_is_declared_or_nearly_so_is_not_silent() -> None:
    assert not is_silent(report(), times(40))
    assert not is_silent(report(decoded=39), times(39))
    assert not is_silent(report(decoded=20), [2 * seconds for seconds in times(20)])  # half as many, twice as long


def test_mutants_crash_no_service_are_not_answered_in_silence_and_leave_nothing(tmp_path: Path) -> None:
    """In a process of its own, whose descriptors are nobody else's; where there are no real clips, so of toys."""
    command = [sys.executable, "-m", "benchmarks.fuzz", "--seed", str(SEED), "--mutants", "300", "--seconds", "60"]
    done = subprocess.run(
        command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rows = dict(re.findall(r"^\| (.+?) \| (.+?) \|$", done.stdout, re.MULTILINE))
    assert int(rows["mutants"].split()[0]) > 50
    assert sum(name.startswith("`video/") for name in rows) > 1 and not rows["answered"].startswith("0,")


def test_what_is_left_is_named(tmp_path: Path) -> None:
    with (tmp_path / "open").open("w") as file:
        now = Place.now()
    assert now.descriptors[file.name] == 1
    more = Place(now.files | {"a.mp4"}, now.descriptors + Counter({"/memfd:clip": 1}))
    assert more.left_since(now) == ["a file: a.mp4", "a descriptor of /memfd:clip"]
    assert now.left_since(now) == now.left_since(more) == []

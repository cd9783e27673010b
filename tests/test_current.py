"""Which models are where, as a replica that starts finds them, and the steps from some to others."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.current import Change, Current, Lineup, changes, models_in, num_switched
from serving.launch import read_lineup
from vidseq.errors import OptionError

FOLDERS = st.lists(st.sampled_from([Path("/models") / name for name in "abcd"]), unique=True, max_size=4)
LINEUPS = st.builds(
    lambda model, also: Lineup(model, tuple(also)), st.sampled_from([Path("/first"), Path("/second")]), FOLDERS
)


def model(folder: Path) -> Path:
    """What looks like one from outside."""
    folder.mkdir(parents=True)
    (folder / "manifest.json").touch()
    return folder


def test_a_place_is_a_model_or_a_folder_of_models(tmp_path: Path) -> None:
    one, b, a = model(tmp_path / "one"), model(tmp_path / "many/b"), model(tmp_path / "many/a")
    (tmp_path / "many/half-written").mkdir()
    (tmp_path / "many/link").symlink_to(one)
    assert models_in([one, tmp_path / "many", tmp_path / "absent"]) == [one, a, b]


def test_the_first_model_may_lie_in_the_folder_of_the_others(tmp_path: Path) -> None:
    a, b, c = (model(tmp_path / name) for name in "abc")
    assert Lineup.of(b, [tmp_path]) == Lineup(b, (a, c))


def test_what_is_neither_is_refused_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"--also: .*absent is neither a model"):
        read_lineup(tmp_path, [tmp_path / "absent"])
    assert read_lineup(tmp_path, [tmp_path]).also == ()


def test_links_are_followed_when_they_are_read_and_not_before(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(model(tmp_path / "a"))
    before = Lineup.of(link, [])
    link.unlink()
    link.symlink_to(model(tmp_path / "b"))
    assert (before.model.name, Lineup.of(link, []).model.name) == ("a", "b")


def test_a_replica_that_starts_finds_what_was_switched_to_last(tmp_path: Path) -> None:
    a, b, c = (model(tmp_path / name) for name in "abc")
    current = Current(tmp_path / "links", Lineup(a, (c, b)))
    for lineup in (Lineup(a, (c, b)), Lineup(b), Lineup(c, (a,))):
        current.switch(lineup)
        assert Lineup.of(current.model, [current.also]) == lineup == current.lineup
    assert num_switched(current.model) == 3 and num_switched(a) == num_switched(tmp_path / "2026/model") == 0


@given(before=LINEUPS, after=LINEUPS)
def test_the_steps_lead_to_what_is_wanted(before: Lineup, after: Lineup) -> None:
    lineup = before
    for change in changes(before, after):
        lineup = change.made_to(lineup)
    assert (lineup.model, set(lineup.also)) == (after.model, set(after.also))


@given(before=LINEUPS, come=st.sampled_from([Path("/models/x"), Path("/models/y")]))
def test_one_that_came_or_went_is_a_step_by_itself_and_the_others_stay(before: Lineup, come: Path) -> None:
    after = Lineup(before.model, (come, *before.also))
    assert changes(before, after) == [Change("add", come)]
    assert changes(after, before) == [Change("remove", come)]


@given(LINEUPS)
def test_where_nothing_came_or_went_all_are_read_again(lineup: Lineup) -> None:
    assert changes(lineup, lineup) == [Change("all", lineup.model, lineup.also)]

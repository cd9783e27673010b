"""Models that take the place of others in a replica, or come beside them: tried first, taken by name, or dropped."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from serving.answering import Answering
from serving.current import Current, Lineup
from serving.labeller import Labeller
from tests.toy_models import toy_checkpoint
from vidseq.config import Limits
from vidseq.errors import CheckpointError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    toy_checkpoint(folder / "a")
    toy_checkpoint(folder / "b", cell="lstm")
    toy_checkpoint(folder / "both", bidirectional=True)
    toy_checkpoint(folder / "stranger", seed=1)
    return folder


def load(model: Path, also: Sequence[Path]) -> Labeller:
    return Labeller(model, also=also, name=None, device="cpu", limits=Limits())


class House:
    """A replica's models, and what was told of those that were offered."""

    def __init__(self, folder: Path, first: str, *also: str) -> None:
        self.told = list[str]()
        self.answering = Answering(load, folder / first, [folder / name for name in also], told=self.told.append)

    @property
    def names(self) -> list[str]:
        return [info.name for info in self.answering.labeller.models.models]


@pytest.fixture
def house(folder: Path) -> House:
    return House(folder, "a")


def test_a_model_that_was_prepared_is_not_asked_before_it_is_taken(house: House, folder: Path) -> None:
    async def main() -> None:
        assert await house.answering.prepare_head(folder / "b") is None
        assert house.names == ["a"]
        await house.answering.take_head(folder / "b")

    asyncio.run(main())
    assert (house.names, house.told) == (["a", "b"], ["taken"])
    house.answering.remove_head(folder / "b")
    house.answering.remove_head(folder / "b")
    assert house.names == ["a"]


def test_a_model_that_does_not_share_the_look_is_refused_in_words_and_the_others_go_on(
    house: House, folder: Path
) -> None:
    refusal = asyncio.run(house.answering.prepare_head(folder / "stranger"))
    assert refusal == "stranger cannot share a look with a: their backbones have other weights"
    with pytest.raises(CheckpointError, match="cannot share a look"):
        asyncio.run(house.answering.take_head(folder / "stranger"))
    assert (house.names, set(house.told)) == (["a"], {"refused"})


def test_a_replica_that_came_since_has_the_model_already_or_loads_it_as_it_is_taken(house: House, folder: Path) -> None:
    asyncio.run(house.answering.take_head(folder / "b"))
    asyncio.run(house.answering.take_head(folder / "b"))
    assert (house.names, house.told) == (["a", "b"], ["taken"])


def test_what_was_dropped_is_loaded_anew(house: House, folder: Path) -> None:
    asyncio.run(house.answering.prepare_head(folder / "b"))
    house.answering.drop()
    asyncio.run(house.answering.take_head(folder / "b"))
    assert house.names == ["a", "b"]


def test_all_models_are_replaced_at_once_also_by_those_of_another_backbone(folder: Path) -> None:
    house = House(folder, "a", "b")

    async def main() -> None:
        assert await house.answering.prepare(folder / "stranger", []) is None
        assert house.names == ["a", "b"]
        await house.answering.take(folder / "stranger", [])

    asyncio.run(main())
    assert house.names == ["stranger"]


def test_models_that_do_not_fit_each_other_are_refused_together(folder: Path) -> None:
    house = House(folder, "a", "b")
    refusal = asyncio.run(house.answering.prepare(folder / "stranger", [folder / "b"]))
    assert refusal is not None and "b cannot share a look with stranger" in refusal
    assert house.names == ["a", "b"]


def test_a_first_model_that_cannot_stream_does_not_follow_one_that_can_but_may_stand_beside_it(
    house: House, folder: Path
) -> None:
    refusal = asyncio.run(house.answering.prepare(folder / "both", []))
    assert refusal is not None and "only one can label streams" in refusal
    asyncio.run(house.answering.take_head(folder / "both"))
    assert house.names == ["a", "both"]


# Links that were switched while a replica could not be asked


@pytest.fixture
def links(folder: Path, tmp_path: Path) -> Current:
    return Current(tmp_path / "links", Lineup(folder / "a"))


def following(links: Current) -> Answering:
    return Answering(load, links.model, [links.also], told=lambda outcome: None)


def names(answering: Answering) -> list[str]:
    return [info.name for info in answering.labeller.models.models]


def test_a_replica_that_a_rollout_passed_by_follows_it(links: Current, folder: Path) -> None:
    answering = following(links)
    assert not asyncio.run(answering.follow())
    links.switch(Lineup(folder / "a", (folder / "b",)))
    assert asyncio.run(answering.follow())
    assert names(answering) == ["a", "b"]
    assert not asyncio.run(answering.follow())


def test_also_where_it_hears_of_the_next_one_first(links: Current, folder: Path) -> None:
    answering = following(links)
    links.switch(Lineup(folder / "b"))
    links.switch(Lineup(folder / "b", (folder / "both",)))

    async def main() -> None:
        await answering.take_head(folder / "both")
        assert names(answering) == ["a", "both"]
        assert await answering.follow()

    asyncio.run(main())
    assert names(answering) == ["b", "both"]


def test_one_that_took_part_in_all_rollouts_has_nothing_to_follow(links: Current, folder: Path) -> None:
    answering = following(links)

    async def main() -> None:
        await answering.prepare_head(folder / "b")
        links.switch(Lineup(folder / "a", (folder / "b",)))
        assert not await answering.follow(), "it is about to be told"
        await answering.take_head(folder / "b")
        links.switch(Lineup(folder / "a"))
        answering.remove_head(folder / "b")
        await answering.prepare(folder / "stranger", [])
        links.switch(Lineup(folder / "stranger"))
        await answering.take(folder / "stranger", [])
        there = answering.labeller
        assert not await answering.follow() and answering.labeller is there

    asyncio.run(main())
    assert names(answering) == ["stranger"]


def test_one_that_cannot_use_what_the_others_answer_with_says_so_each_time_and_goes_on(
    links: Current, folder: Path
) -> None:
    answering = following(links)
    links.switch(Lineup(folder / "both"))
    for _ in range(2):
        with pytest.raises(CheckpointError, match="only one can label streams"):
            asyncio.run(answering.follow())
    assert names(answering) == ["a"]

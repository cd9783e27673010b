"""How a job is divided: by bytes, without holes, with long clips apart and nothing that holds the others up."""

from hypothesis import given
from hypothesis import strategies as st

from serving.batch.shards import MAX_CLIPS, divide, expected_costs, legs_of

MIB = 2**20
SIZES = st.lists(st.one_of(st.none(), st.integers(0, 10**9)), min_size=1, max_size=2000)


@given(num_bytes=SIZES)
def test_every_clip_is_in_one_shard_and_the_shards_are_in_order(num_bytes: list[int | None]) -> None:
    shards = divide(expected_costs(num_bytes))
    assert [index for shard in shards for index in shard] == list(range(len(num_bytes)))
    assert all(0 < len(shard) <= MAX_CLIPS for shard in shards)


def test_a_few_hundred_clips_are_a_shard_each() -> None:
    assert divide(expected_costs([MIB] * 200)) == [range(n, n + 1) for n in range(200)]


def test_a_million_clips_are_some_thousand_shards() -> None:
    assert len(divide(expected_costs([MIB] * 1_000_000))) == 1_000_000 / MAX_CLIPS


def test_a_long_clip_has_a_shard_to_itself() -> None:
    sizes: list[int | None] = [MIB] * 40_000
    sizes[20_000] = 1000 * MIB
    assert range(20_000, 20_001) in divide(expected_costs(sizes))


def test_small_clips_ride_together_and_large_ones_in_smaller_company() -> None:
    shards = divide(expected_costs([MIB] * 32_000 + [10 * MIB] * 32_000))
    small, large = ([len(shard) for shard in shards if (shard[0] < 32_000) == first] for first in (True, False))
    assert (max(small), max(large)) == (MAX_CLIPS, 35)


def test_a_clip_of_unknown_size_counts_as_the_others_mean() -> None:
    assert expected_costs([2 * MIB, None, 4 * MIB]) == [2 * MIB, 3 * MIB, 4 * MIB]
    assert len(set(expected_costs([None, None]))) == 1


# Long clips


def legs(costs: list[float], *, num_workers: int) -> dict[int, int]:
    alone = {number: range(number, number + 1) for number in range(len(costs))}
    return legs_of(alone, dict(enumerate(costs)), num_workers=num_workers)


def test_a_clip_that_would_hold_up_the_end_is_divided() -> None:
    assert legs([1000.0 * MIB, *[10.0 * MIB] * 100], num_workers=8) == {0: 8}
    assert legs([400.0 * MIB, *[10.0 * MIB] * 160], num_workers=8) == {0: 3}


def test_a_lone_clip_is_everybody_s() -> None:
    assert legs([1000.0 * MIB], num_workers=4) == {0: 4}


def test_one_worker_divides_nothing_and_short_clips_are_not_divided() -> None:
    assert legs([1000.0 * MIB], num_workers=1) == {}
    assert legs([50.0 * MIB], num_workers=8) == {}
    assert legs([100.0 * MIB] * 100, num_workers=8) == {}


def test_a_shard_of_several_clips_is_not_divided() -> None:
    assert legs_of({0: range(0, 2)}, {0: 1000.0 * MIB}, num_workers=8) == {}

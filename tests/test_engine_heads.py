"""Several models that share an encoder: one pass of the CNN for all, and each says what it says alone."""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.test_engine import WAIT_SECONDS, Gate, chunk, num_frames
from tests.toy_models import toy_config, toy_model
from vidseq.engine import Compute, Done, Engine, Runner, Work, direct, run_batch
from vidseq.model import VideoModel

KINDS: dict[str, dict[str, Any]] = {
    "gru": {},
    "lstm": {"cell": "lstm", "num_layers": 2, "readout": "attention"},
    "pool": {"cell": "none"},
    "several": {"cell": "elman", "several": True, "action_labels": ("a", "b"), "frame_labels": (), "background": None},
}


def models() -> dict[str, VideoModel]:
    """The first one's encoder is that of all."""
    made = {name: toy_model(toy_config(**options)) for name, options in KINDS.items()}
    for model in made.values():
        model.encoder = made["gru"].encoder
    return made


@pytest.fixture
def toys() -> dict[str, VideoModel]:
    return models()


@pytest.fixture
def gate(toys: dict[str, VideoModel]) -> Iterator[Gate]:
    """Shut at first, in front of the encoder of all."""
    gate = Gate(toys["gru"].encoder)
    for model in toys.values():
        model.encoder = gate
    yield gate
    gate.open.set()


def assert_same(done: Done, expected: Done) -> None:
    for got, want in (
        (done.scores.action_logits_BTA, expected.scores.action_logits_BTA),
        (done.scores.frame_logits_BTL, expected.scores.frame_logits_BTL),
    ):
        assert (got is None) == (want is None)
        if got is not None and want is not None:
            torch.testing.assert_close(got, want, atol=1e-6, rtol=0)
    torch.testing.assert_close(dict(done.state.tensors), dict(expected.state.tensors), atol=1e-6, rtol=1e-5)


def each(done: Done, heads: list[Runner]) -> list[Done]:
    """Of the one that computes, and then of these."""
    return [done, *(done.also[head] for head in heads)]


def watched(compute: Compute, pixels_THWC: np.ndarray, cuts: list[int], heads: list[Runner]) -> list[list[Done]]:
    """What is said of a video that comes in pieces."""
    answers: list[Done] = []
    for piece_THWC in np.split(pixels_THWC, cuts):
        first = Work(piece_THWC, None, also=dict.fromkeys(heads))
        work = Work.after(answers[-1], piece_THWC) if answers else first
        answers.append(compute(work).result(WAIT_SECONDS))
    return [each(done, heads) for done in answers]


@settings(max_examples=20)
@given(cuts=st.sets(st.integers(1, 23), max_size=5), order=st.permutations(["lstm", "pool", "several"]))
def test_each_of_several_heads_says_what_it_says_alone_however_the_video_is_cut(
    cuts: set[int], order: list[str]
) -> None:
    toys, pixels_THWC = models(), chunk(24).pixels_THWC
    names = ["gru", *order]
    heads = [Runner.of(toys[name]) for name in order]
    with Engine(toys["gru"], turn_frames=3) as engine:
        together = watched(engine.submit, pixels_THWC, sorted(cuts), heads)
    for number, name in enumerate(names):
        alone = watched(direct(toys[name]), pixels_THWC, sorted(cuts), [])
        for answer, (expected,) in zip(together, alone, strict=True):
            assert_same(answer[number], expected)


def test_frames_are_encoded_once_for_all_heads(toys: dict[str, VideoModel], gate: Gate) -> None:
    heads = [Runner.of(toys[name]) for name in ("lstm", "pool", "several")]
    gate.open.set()
    with Engine(toys["gru"]) as engine:
        done = engine.submit(Work(chunk(4).pixels_THWC, None, also=dict.fromkeys(heads))).result(WAIT_SECONDS)
    assert gate.batches == [4]
    assert done.also.keys() == set(heads)
    assert {part.encode_ms for part in done.also.values()} == {done.encode_ms}


def test_works_that_want_different_heads_share_a_batch(toys: dict[str, VideoModel], gate: Gate) -> None:
    lstm, pool = (Runner.of(toys[name]) for name in ("lstm", "pool"))
    works = [
        chunk(3, seed=1),
        Work(chunk(4, seed=2).pixels_THWC, None, head=lstm),
        Work(chunk(2, seed=3).pixels_THWC, None, head=pool, also={lstm: None}),
        chunk(1, seed=4),
    ]
    with Engine(toys["gru"]) as engine:
        first = engine.submit(chunk(1))
        assert gate.entered.wait(WAIT_SECONDS)
        futures = [engine.submit(work) for work in works]
        gate.open.set()
        first.result(WAIT_SECONDS)
        answers = [future.result(WAIT_SECONDS) for future in futures]
        ran = list(gate.batches)
    assert ran == [1, 10]
    for answer, work, name in zip(answers, works, ["gru", "lstm", "pool", "gru"], strict=True):
        assert_same(answer, direct(toys[name])(Work(work.pixels_THWC, None)).result())
    assert_same(answers[2].also[lstm], direct(toys["lstm"])(Work(works[2].pixels_THWC, None)).result())


def test_many_threads_that_ask_different_heads_get_their_own_answers(toys: dict[str, VideoModel]) -> None:
    runners = {name: Runner.of(model) for name, model in toys.items()}

    def ask(engine: Engine, number: int) -> Future[Done]:
        name = [*toys][number % len(toys)]
        work = Work(chunk(1 + number % 7, seed=number).pixels_THWC, None, head=runners[name])
        return engine.submit(work)

    with Engine(toys["gru"], turn_frames=2) as engine, ThreadPoolExecutor(8) as pool:
        answers = [future.result(WAIT_SECONDS) for future in pool.map(lambda number: ask(engine, number), range(24))]
    for number, answer in enumerate(answers):
        model = toys[[*toys][number % len(toys)]]
        assert_same(answer, direct(model)(chunk(1 + number % 7, seed=number)).result())


def test_a_head_that_reads_from_both_ends_has_its_video_in_one_piece() -> None:
    toys = models()
    both = toy_model(toy_config(cell="lstm", bidirectional=True))
    both.encoder = toys["gru"].encoder
    head, batches = Runner.of(both), list[tuple[int, int]]()
    with Engine(toys["gru"], turn_frames=4, observe=lambda *batch: batches.append(batch)) as engine:
        done = engine.submit(Work(chunk(11).pixels_THWC, None, also={head: None})).result(WAIT_SECONDS)
        engine.submit(chunk(5)).result(WAIT_SECONDS)
    assert batches == [(1, 11), (1, 4), (1, 1)]
    assert_same(done.also[head], direct(both)(chunk(11)).result())


def test_a_head_of_another_encoder_is_refused_at_the_door(toys: dict[str, VideoModel]) -> None:
    stranger = Runner.of(toy_model(toy_config(), seed=1))
    with Engine(toys["gru"]) as engine:
        with pytest.raises(AssertionError, match="another encoder"):
            engine.submit(Work(chunk(1).pixels_THWC, None, also={stranger: None}))
        assert num_frames(engine.submit(chunk(1)).result(WAIT_SECONDS)) == 1


def test_a_state_of_another_head_is_refused_before_it_could_fail_a_batch(toys: dict[str, VideoModel]) -> None:
    lstm = Runner.of(toys["lstm"])
    with Engine(toys["gru"]) as engine:
        done = engine.submit(Work(chunk(1).pixels_THWC, None, also={lstm: None})).result(WAIT_SECONDS)
        with pytest.raises(AssertionError, match="state of other tensors"):
            engine.submit(Work(chunk(1).pixels_THWC, done.also[lstm].state))
        assert num_frames(engine.submit(Work(chunk(2).pixels_THWC, done.state)).result(WAIT_SECONDS)) == 2


def test_each_head_is_told_its_own_time_for_the_recurrence(toys: dict[str, VideoModel]) -> None:
    lstm = Runner.of(toys["lstm"])
    (done,) = run_batch(Runner.of(toys["gru"]), [Work(chunk(8).pixels_THWC, None, also={lstm: None})])
    assert done.recur_ms > 0 < done.also[lstm].recur_ms != done.recur_ms
    assert done.also[lstm].queued_ms == done.queued_ms

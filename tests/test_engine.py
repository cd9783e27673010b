"""One model loop for many callers: everybody's answer is their own, whoever shares the batch."""

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.toy_models import toy_config, toy_model
from tests.web_server import wait_until
from vidseq.engine import Compute, Done, Engine, Runner, Work, direct, run_batch
from vidseq.errors import DeadlinePassed
from vidseq.model import VideoModel
from vidseq.state import State

WAIT_SECONDS = 20.0
POISON, DEADLY = 255, 254  # the value of every pixel of a frame that the gate refuses, and of one that ends the thread


class Gate(nn.Module):
    """An encoder that writes down the size of each batch, lets none through while it is shut, and refuses poison."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder, self.motion = encoder, None
        self.open, self.entered = threading.Event(), threading.Event()
        self.batches: list[int] = []

    def forward(self, pixels_NHWC: Tensor) -> Tensor:
        self.batches.append(len(pixels_NHWC))
        self.entered.set()
        assert self.open.wait(WAIT_SECONDS)
        if (pixels_NHWC == POISON).all(dim=(1, 2, 3)).any():
            raise RuntimeError("a poisoned frame")
        if (pixels_NHWC == DEADLY).all(dim=(1, 2, 3)).any():
            raise SystemExit
        encoded_NE: Tensor = self.encoder(pixels_NHWC)
        return encoded_NE

    def features(self, encoded_BTE: Tensor, state: State, lengths: Sequence[int]) -> tuple[Tensor, State]:
        feature_BTD, state = self.encoder.features(encoded_BTE, state, lengths)
        return feature_BTD, state


@pytest.fixture
def model() -> VideoModel:
    return toy_model(toy_config(cell="lstm", num_layers=2, readout="attention"))


@pytest.fixture
def gate(model: VideoModel) -> Iterator[Gate]:
    """Shut at first, in front of the model's encoder."""
    gate = Gate(model.encoder)
    model.encoder = gate
    yield gate
    gate.open.set()


def chunk(num_frames: int, *, seed: int = 0) -> Work:
    pixels_THWC = np.random.default_rng(seed).integers(0, 200, (num_frames, 32, 32, 3), dtype=np.uint8)
    return Work(pixels_THWC, None)


def painted(value: int) -> Work:
    return Work(np.full((2, 32, 32, 3), value, dtype=np.uint8), None)


def num_frames(done: Done) -> int:
    assert done.scores.frame_logits_BTL is not None
    return done.scores.frame_logits_BTL.shape[1]


def assert_same(done: Done, expected: Done) -> None:
    for got, want in (
        (done.scores.action_probabilities_BTA(), expected.scores.action_probabilities_BTA()),
        (done.scores.frame_probabilities_BTL(), expected.scores.frame_probabilities_BTL()),
    ):
        torch.testing.assert_close(got, want, atol=1e-5, rtol=0)


def test_each_of_several_threads_gets_the_answer_that_it_gets_alone(model: VideoModel) -> None:
    """Three chunks of each video, one after the other, of lengths that differ between the videos."""

    def watch(compute: Compute, seed: int) -> list[Done]:
        answers, state = [], None
        for number in range(3):
            pixels_THWC = chunk(1 + (seed + number) % 5, seed=10 * seed + number).pixels_THWC
            answers.append(compute(Work(pixels_THWC, state)).result(WAIT_SECONDS))
            state = answers[-1].state
        return answers

    alone = [watch(direct(model), seed) for seed in range(8)]
    with Engine(model) as engine, ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda seed: watch(engine.submit, seed), range(8)))
    for answers, expected in zip(together, alone, strict=True):
        for done, want in zip(answers, expected, strict=True):
            assert_same(done, want)


def test_what_came_while_the_model_was_busy_rides_in_one_batch(model: VideoModel, gate: Gate) -> None:
    with Engine(model) as engine:
        futures = [engine.submit(chunk(3))]
        assert gate.entered.wait(WAIT_SECONDS)
        futures += [engine.submit(chunk(4, seed=seed)) for seed in range(5)]
        gate.open.set()
        lengths = [future.result(WAIT_SECONDS).scores.frame_logits_BTL.shape[1] for future in futures]
    assert gate.batches == [3, 20]
    assert lengths == [3, 4, 4, 4, 4, 4]


def test_a_batch_holds_no_more_frames_than_allowed(model: VideoModel, gate: Gate) -> None:
    with Engine(model, max_batch_frames=8) as engine:
        futures = [engine.submit(chunk(1))]
        assert gate.entered.wait(WAIT_SECONDS)
        futures += [engine.submit(chunk(length)) for length in (4, 3, 2, 4)]
        gate.open.set()
        [future.result(WAIT_SECONDS) for future in futures]
    assert gate.batches == [1, 7, 6]


def test_a_video_that_has_to_come_in_one_piece_is_not_cut() -> None:
    model = toy_model(toy_config(bidirectional=True))
    batches: list[tuple[int, int]] = []
    with Engine(model, max_batch_frames=8, observe=lambda *batch: batches.append(batch)) as engine:
        done = engine.submit(chunk(11)).result(WAIT_SECONDS)
    assert batches == [(1, 11)]
    assert_same(done, direct(model)(chunk(11)).result())


def test_a_work_of_many_frames_holds_another_up_for_one_turn(model: VideoModel, gate: Gate) -> None:
    """What a batch holds, as (works, frames): the polite work rides in the batch after the one that ran."""
    batches: list[tuple[int, int]] = []
    with Engine(model, turn_frames=4, observe=lambda *batch: batches.append(batch)) as engine:
        greedy = engine.submit(chunk(64))
        assert gate.entered.wait(WAIT_SECONDS)
        polite = engine.submit(chunk(1))
        gate.open.set()
        assert num_frames(polite.result(WAIT_SECONDS)) == 1
        assert num_frames(greedy.result(WAIT_SECONDS)) == 64
    assert batches == [(1, 4), (2, 5), *[(1, 4)] * 14]


def test_whoever_has_had_a_turn_stands_behind_all_who_wait(model: VideoModel, gate: Gate) -> None:
    """Batches of one turn: a a a, b b and c come in this order, and end in another."""
    ended: list[str] = []
    with Engine(model, max_batch_frames=2, turn_frames=2) as engine:
        engine.submit(chunk(1))
        assert gate.entered.wait(WAIT_SECONDS)
        for name, length in (("a", 6), ("b", 4), ("c", 2)):
            engine.submit(chunk(length)).add_done_callback(lambda _, name=name: ended.append(name))
        gate.open.set()
    assert ended == ["c", "b", "a"]


@pytest.mark.parametrize("readout", ["last", "mean", "attention"])
@pytest.mark.parametrize("cell", ["elman", "lstm", "gru", "none"])
def test_a_work_served_in_turns_among_others_gets_the_one_shot_answer(cell: str, readout: str) -> None:
    model = toy_model(toy_config(cell=cell, num_layers=2, readout=readout))
    works = [chunk(length, seed=length) for length in (1, 3, 6, 17, 64)]
    before = direct(model)(chunk(5)).result()
    works.append(Work(chunk(9, seed=9).pixels_THWC, before.state))
    alone = [direct(model)(work).result() for work in works]
    with Engine(model, max_batch_frames=10, turn_frames=3) as engine:
        futures = [engine.submit(work) for work in works]
        for future, expected in zip(futures, alone, strict=True):
            done = future.result(WAIT_SECONDS)
            assert_same(done, expected)
            torch.testing.assert_close(dict(done.state.tensors), dict(expected.state.tensors), atol=1e-5, rtol=1e-5)


def test_a_failure_reaches_every_caller_of_its_batch_and_nobody_later(model: VideoModel, gate: Gate) -> None:
    with Engine(model) as engine:
        first = engine.submit(chunk(1))
        assert gate.entered.wait(WAIT_SECONDS)
        batch = [engine.submit(chunk(2)), engine.submit(painted(POISON)), engine.submit(chunk(2))]
        gate.open.set()
        for future in batch:
            with pytest.raises(RuntimeError, match="poisoned"):
                future.result(WAIT_SECONDS)
        assert first.result(WAIT_SECONDS).scores.frame_logits_BTL.shape[1] == 1
        assert engine.submit(chunk(2)).result(WAIT_SECONDS).scores.frame_logits_BTL.shape[1] == 2


def test_closing_finishes_what_was_submitted(model: VideoModel, gate: Gate) -> None:
    engine = Engine(model, max_batch_frames=4)
    futures = [engine.submit(chunk(3, seed=seed)) for seed in range(6)]
    gate.open.set()
    engine.close()
    assert all(future.done() and future.exception() is None for future in futures)


def test_a_chunk_that_nobody_waits_for_any_more_is_not_computed(model: VideoModel, gate: Gate) -> None:
    with Engine(model) as engine:
        engine.submit(chunk(1))
        assert gate.entered.wait(WAIT_SECONDS)
        given_up, wanted = engine.submit(chunk(7)), engine.submit(chunk(2))
        assert given_up.cancel()
        gate.open.set()
        wanted.result(WAIT_SECONDS)
    assert gate.batches == [1, 2]


def test_a_work_that_is_given_up_after_its_first_turn_gets_no_second(model: VideoModel, gate: Gate) -> None:
    with Engine(model, turn_frames=4) as engine:
        given_up = engine.submit(chunk(12))
        assert gate.entered.wait(WAIT_SECONDS)
        assert given_up.cancel()
        gate.open.set()
        engine.submit(chunk(1)).result(WAIT_SECONDS)
    assert gate.batches[0] == 4 and sum(gate.batches) == 5


def test_a_work_whose_turn_comes_too_late_is_not_computed(model: VideoModel, gate: Gate) -> None:
    with Engine(model) as engine:
        engine.submit(chunk(1))
        assert gate.entered.wait(WAIT_SECONDS)
        now_seconds = time.perf_counter()
        late = engine.submit(replace(chunk(7), deadline_seconds=now_seconds))
        in_time = engine.submit(replace(chunk(2), deadline_seconds=now_seconds + 1000))
        gate.open.set()
        with pytest.raises(DeadlinePassed, match="s after its deadline"):
            late.result(WAIT_SECONDS)
        assert num_frames(in_time.result(WAIT_SECONDS)) == 2
    assert gate.batches == [1, 2]


def test_a_work_that_was_begun_in_time_is_finished_after_its_deadline(model: VideoModel, gate: Gate) -> None:
    deadline_seconds = time.perf_counter() + 2.0
    with Engine(model, turn_frames=4) as engine:
        future = engine.submit(replace(chunk(8), deadline_seconds=deadline_seconds))
        assert gate.entered.wait(WAIT_SECONDS)
        time.sleep(max(0.0, deadline_seconds - time.perf_counter()) + 0.01)
        gate.open.set()
        assert num_frames(future.result(WAIT_SECONDS)) == 8


@pytest.mark.parametrize(
    "pixels_THWC",
    [np.zeros((2, 16, 32, 3), np.uint8), np.zeros((0, 32, 32, 3), np.uint8), np.zeros((1, 32, 32, 3), np.float32)],
    ids=["size", "no frames", "type"],
)
def test_a_chunk_that_would_fail_its_batch_is_refused_at_the_door(model: VideoModel, pixels_THWC: np.ndarray) -> None:
    with Engine(model) as engine:
        with pytest.raises(AssertionError, match=r"uint8 \(T, 32, 32, 3\)"):
            engine.submit(Work(pixels_THWC, None))
        assert num_frames(engine.submit(chunk(1)).result(WAIT_SECONDS)) == 1


def test_an_event_loop_runs_on_while_its_works_wait_in_a_full_line(model: VideoModel, gate: Gate) -> None:
    """Were the loop held up, nobody would open the gate."""
    works = [chunk(1 + number, seed=number) for number in range(6)]

    async def watch(engine: Engine) -> list[Done]:
        tasks = [asyncio.create_task(engine.advance(work)) for work in works]
        assert await asyncio.to_thread(gate.entered.wait, WAIT_SECONDS)
        await asyncio.sleep(0.01)
        assert not any(task.done() for task in tasks)
        gate.open.set()
        return await asyncio.gather(*tasks)

    with Engine(model, max_waiting=1) as engine:
        answers = asyncio.run(watch(engine))
    for done, work in zip(answers, works, strict=True):
        assert_same(done, direct(model)(work).result())


def test_a_task_that_is_cancelled_takes_its_work_out_of_the_line(model: VideoModel, gate: Gate) -> None:
    async def watch(engine: Engine) -> None:
        tasks = [asyncio.create_task(engine.advance(chunk(length))) for length in (1, 3, 2)]
        assert await asyncio.to_thread(gate.entered.wait, WAIT_SECONDS)
        tasks[1].cancel()
        await asyncio.wait(tasks[1:2])
        gate.open.set()
        assert num_frames(await tasks[2]) == 2
        assert tasks[1].cancelled()

    with Engine(model) as engine:
        engine.submit(chunk(1))  # whoever comes later waits
        assert gate.entered.wait(WAIT_SECONDS)
        asyncio.run(watch(engine))
    assert gate.batches == [1, 3]


def test_a_task_is_told_what_the_model_raised(model: VideoModel, gate: Gate) -> None:
    gate.open.set()
    with Engine(model) as engine:
        with pytest.raises(RuntimeError, match="poisoned"):
            asyncio.run(engine.advance(painted(POISON)))
        assert num_frames(asyncio.run(engine.advance(chunk(2)))) == 2


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_nobody_is_left_waiting_when_the_thread_dies(model: VideoModel, gate: Gate) -> None:
    """Neither those of its batch, nor those in the line, nor a caller that a full line holds back."""
    with Engine(model, max_batch_frames=2, max_waiting=1) as engine, ThreadPoolExecutor(1) as pool:
        engine.submit(chunk(1))
        assert gate.entered.wait(WAIT_SECONDS)
        deadly = engine.submit(painted(DEADLY))
        held_back = pool.submit(engine.submit, chunk(1))
        held_back_async = pool.submit(asyncio.run, engine.advance(chunk(2)))
        wait_until(lambda: engine.num_waiting == 2)
        gate.open.set()
        for future in (deadly, held_back.result(WAIT_SECONDS), held_back_async):
            with pytest.raises(AssertionError, match="has died"):
                future.result(WAIT_SECONDS)
        engine.close()
        assert not engine.alive


def test_how_long_the_model_is_at_a_batch_is_known_while_it_is(model: VideoModel, gate: Gate) -> None:
    with Engine(model) as engine:
        assert engine.stalled_seconds == 0
        done = engine.submit(chunk(1))
        assert gate.entered.wait(WAIT_SECONDS)
        first_seconds = engine.stalled_seconds
        gate.open.wait(0.05)
        assert 0 < first_seconds < engine.stalled_seconds
        gate.open.set()
        done.result(WAIT_SECONDS)
        assert engine.submit(chunk(1)).result(WAIT_SECONDS).queued_ms >= 0
    assert engine.stalled_seconds == 0


class Late(Engine):
    """Takes nothing from its line before it may."""

    may_gather = threading.Event()

    def _gather(self) -> list[Any]:
        assert self.may_gather.wait(WAIT_SECONDS)
        return super()._gather()


def test_a_thread_that_takes_nothing_from_the_line_is_known_too(model: VideoModel) -> None:
    with Late(model) as engine:
        assert engine.stalled_seconds == 0
        done = engine.submit(chunk(1))
        first_seconds = engine.stalled_seconds
        time.sleep(0.05)
        assert first_seconds + 0.04 < engine.stalled_seconds
        engine.may_gather.set()
        done.result(WAIT_SECONDS)
    assert engine.stalled_seconds == 0


def test_a_batch_of_a_whole_video_counts_for_as_many_full_ones() -> None:
    model = toy_model(toy_config(cell="lstm", bidirectional=True))
    model.encoder = gate = Gate(model.encoder)
    with Engine(model, max_batch_frames=2) as engine:
        engine.submit(chunk(200))
        assert gate.entered.wait(WAIT_SECONDS)
        begun = time.monotonic()
        gate.open.wait(0.1)
        assert engine.stalled_seconds < (time.monotonic() - begun) / 2
        gate.open.set()


def test_an_engine_that_retires_finishes_what_was_submitted(model: VideoModel, gate: Gate) -> None:
    engine = Engine(model)
    futures = [engine.submit(chunk(1)) for _ in range(3)]
    engine.retire()
    assert engine.alive
    gate.open.set()
    assert all(future.result(WAIT_SECONDS).queued_ms >= 0 for future in futures)
    engine.close()
    assert not engine.alive


def test_an_engine_that_was_closed_takes_no_more_work(model: VideoModel) -> None:
    engine = Engine(model)
    assert engine.alive
    engine.close()
    assert not engine.alive
    with pytest.raises(AssertionError, match="closed"):
        engine.submit(chunk(1))
    with pytest.raises(AssertionError, match="closed"):
        asyncio.run(engine.advance(chunk(1)))


def test_a_full_line_holds_its_callers_back(model: VideoModel, gate: Gate) -> None:
    with Engine(model, max_waiting=1) as engine:
        engine.submit(chunk(1))
        assert gate.entered.wait(WAIT_SECONDS)
        engine.submit(chunk(1))
        accepted: Future[Future[Done]] = Future()
        caller = threading.Thread(target=lambda: accepted.set_result(engine.submit(chunk(1))))
        caller.start()
        caller.join(0.2)
        assert not accepted.done()
        gate.open.set()
        assert accepted.result(WAIT_SECONDS).result(WAIT_SECONDS).queued_ms >= 0
        caller.join()


def test_the_milliseconds_of_several_turns_add_up_to_no_more_than_the_wait(model: VideoModel) -> None:
    with Engine(model, turn_frames=2) as engine:
        begun = time.perf_counter()
        done = engine.submit(chunk(10)).result(WAIT_SECONDS)
        waited_ms = 1000 * (time.perf_counter() - begun)
        part_ms = min(run_batch(Runner.of(model), [chunk(2)])[0].encode_ms for _ in range(5))
    assert 0 < done.queued_ms + done.encode_ms + done.recur_ms <= waited_ms
    assert done.encode_ms > part_ms


LEAVE = """
import torch
from tests.toy_models import toy_config, toy_model
from vidseq.engine import Engine

model = toy_model(toy_config())
model.tensors = [torch.zeros(1) for _ in range(200_000)]  # takes a while to free
engine = Engine(model)
del model
engine.retire()
del engine
"""


def test_a_process_may_end_while_the_thread_of_an_engine_still_does() -> None:
    """With the last reference to its model that thread would abort the process."""
    ended = subprocess.run([sys.executable, "-c", LEAVE], capture_output=True, text=True, timeout=120)
    assert (ended.returncode, ended.stderr) == (0, "")

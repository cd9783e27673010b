"""One model loop for many callers: everybody's answer is their own, whoever shares the batch."""

import os
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.toy_models import toy_config, toy_model
from vidseq.engine import Compute, Done, Engine, Runner, Work, direct, run_batch
from vidseq.model import VideoModel

WAIT_SECONDS = 20.0
POISON = 255  # the value of every pixel of a frame that the gate refuses


class Gate(nn.Module):
    """An encoder that writes down the size of each batch, lets none through while it is shut, and refuses poison."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.open, self.entered = threading.Event(), threading.Event()
        self.batches: list[int] = []

    def forward(self, pixels_NHWC: Tensor) -> Tensor:
        self.batches.append(len(pixels_NHWC))
        self.entered.set()
        assert self.open.wait(WAIT_SECONDS)
        if (pixels_NHWC == POISON).all(dim=(1, 2, 3)).any():
            raise RuntimeError("a poisoned frame")
        feature_ND: Tensor = self.encoder(pixels_NHWC)
        return feature_ND


@pytest.fixture
def model() -> VideoModel:
    return toy_model(toy_config(cell="lstm", num_layers=2, readout="attention"))


@pytest.fixture
def cuda() -> torch.device:
    """Skips without a device, fails without one where FAIL_WITHOUT_CUDA=1."""
    if not torch.cuda.is_available():
        (pytest.fail if os.environ.get("FAIL_WITHOUT_CUDA") == "1" else pytest.skip)("there is no CUDA device")
    return torch.device("cuda")


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


def poisoned() -> Work:
    return Work(np.full((2, 32, 32, 3), POISON, dtype=np.uint8), None)


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


def test_a_batch_holds_no_more_frames_than_allowed_except_one_chunk_that_is_larger(
    model: VideoModel, gate: Gate
) -> None:
    with Engine(model, max_batch_frames=8) as engine:
        futures = [engine.submit(chunk(1))]
        assert gate.entered.wait(WAIT_SECONDS)
        futures += [engine.submit(chunk(num_frames)) for num_frames in (5, 3, 2, 11, 4)]
        gate.open.set()
        [future.result(WAIT_SECONDS) for future in futures]
    assert gate.batches == [1, 8, 2, 11, 4]


def test_a_failure_reaches_every_caller_of_its_batch_and_nobody_later(model: VideoModel, gate: Gate) -> None:
    with Engine(model) as engine:
        first = engine.submit(chunk(1))
        assert gate.entered.wait(WAIT_SECONDS)
        batch = [engine.submit(chunk(2)), engine.submit(poisoned()), engine.submit(chunk(2))]
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


def test_the_milliseconds_of_a_batch_are_shared_by_the_number_of_frames(model: VideoModel, gate: Gate) -> None:
    with Engine(model) as engine:
        engine.submit(chunk(1))
        assert gate.entered.wait(WAIT_SECONDS)
        short, long = engine.submit(chunk(2)), engine.submit(chunk(6))
        gate.open.set()
        short_done, long_done = short.result(WAIT_SECONDS), long.result(WAIT_SECONDS)
    assert long_done.encode_ms == pytest.approx(3 * short_done.encode_ms)
    assert long_done.recur_ms == pytest.approx(3 * short_done.recur_ms)
    assert min(short_done.queued_ms, short_done.encode_ms, short_done.recur_ms) > 0


@pytest.mark.parametrize("num_layers", [1, 3])
@pytest.mark.parametrize("cell", ["elman", "lstm", "gru", "none"])
def test_live_streams_frame_by_frame_get_the_answers_of_whole_videos(cell: str, num_layers: int) -> None:
    model = toy_model(toy_config(cell=cell, num_layers=num_layers, readout="attention"))
    videos = [chunk(6, seed=seed) for seed in range(3)]
    whole = run_batch(Runner.of(model), videos)
    runner, states = Runner.of(model), [None] * 3
    for frame in range(6):
        works = [Work(v.pixels_THWC[frame : frame + 1], s) for v, s in zip(videos, states, strict=True)]
        live = run_batch(runner, works)
        states = [done.state for done in live]
        for done, expected in zip(live, whole, strict=True):
            action_BTA = expected.scores.action_logits_BTA[:, frame : frame + 1]
            torch.testing.assert_close(done.scores.action_logits_BTA, action_BTA, atol=1e-5, rtol=0)


def test_live_streams_do_not_run_the_kernels_for_whole_sequences(model: VideoModel) -> None:
    calls: list[object] = []
    model.sequence.recurrent.rnn.register_forward_hook(lambda *_: calls.append(1))
    runner = Runner.of(model)
    run_batch(runner, [chunk(1), chunk(1, seed=1)])
    assert calls == []
    run_batch(runner, [chunk(1), chunk(2)])
    assert calls == [1]


@pytest.mark.parametrize("cell", ["lstm", "none"])
def test_a_bidirectional_model_is_run_over_one_frame_too(cell: str) -> None:
    model = toy_model(toy_config(cell=cell, bidirectional=True))
    (done,) = run_batch(Runner.of(model), [chunk(1)])
    assert done.scores.frame_logits_BTL.shape == (1, 1, 3)


@pytest.mark.gpu
def test_on_a_gpu_states_and_answers_come_and_go_on_the_cpu(model: VideoModel, cuda: torch.device) -> None:
    """Rows of different length with states from the CPU, then single frames: both ways through the weights."""

    def watch(runner: Runner) -> list[Done]:
        first = run_batch(runner, [chunk(3), chunk(1, seed=1)])
        works = [[Work(chunk(length, seed=7).pixels_THWC, done.state) for done in first] for length in (2, 1)]
        works[0].append(chunk(4, seed=9))
        return first + run_batch(runner, works[0]) + run_batch(runner, works[1])

    expected = watch(Runner.of(model))
    for got, want in zip(watch(Runner.of(model.to(cuda))), expected, strict=True):
        assert {tensor.device.type for tensor in got.state.tensors.values()} == {"cpu"}
        torch.testing.assert_close(
            got.scores.action_probabilities_BTA(), want.scores.action_probabilities_BTA(), atol=1e-3, rtol=0
        )

"""Chunks advanced together get the answers that they get alone, whatever their lengths."""

from typing import get_args

import numpy as np
import pytest
import torch

from tests.toy_models import toy_config, toy_model
from vidseq.config import CellName
from vidseq.model import VideoModel
from vidseq.runner import Done, Runner, Work, run_batch


@pytest.fixture
def model() -> VideoModel:
    return toy_model(toy_config(cell="lstm", num_layers=2, readout="attention"))


def chunk(num_frames: int, *, seed: int = 0) -> Work:
    pixels_THWC = np.random.default_rng(seed).integers(0, 200, (num_frames, 32, 32, 3), dtype=np.uint8)
    return Work(pixels_THWC, None)


def test_answers_come_in_the_order_of_the_questions(model: VideoModel) -> None:
    """Inside, the longest comes first."""
    runner, works = Runner.of(model), [chunk(length, seed=length) for length in (2, 7, 1, 20, 2)]
    for done, work in zip(run_batch(runner, works), works, strict=True):
        (alone,) = run_batch(runner, [work])
        torch.testing.assert_close(done.scores.frame_logits_BTL, alone.scores.frame_logits_BTL, atol=1e-5, rtol=0)
        torch.testing.assert_close(dict(done.state.tensors), dict(alone.state.tensors), atol=1e-5, rtol=1e-5)


def test_the_milliseconds_of_a_batch_are_shared_by_the_number_of_frames(model: VideoModel) -> None:
    short, long = run_batch(Runner.of(model), [chunk(2), chunk(6)])
    assert long.encode_ms == pytest.approx(3 * short.encode_ms)
    assert long.recur_ms == pytest.approx(3 * short.recur_ms)
    assert min(short.queued_ms, short.encode_ms, short.recur_ms) > 0


@pytest.mark.parametrize("num_layers", [1, 3])
@pytest.mark.parametrize("cell", [*get_args(CellName), "none"])
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
    model.sequence.recurrent.layers[0].kernel.register_forward_hook(lambda *_: calls.append(1))
    runner = Runner.of(model)
    run_batch(runner, [chunk(1), chunk(4), chunk(1, seed=1)])
    assert calls == []
    run_batch(runner, [chunk(1), chunk(16)])
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
        works[0].append(chunk(16, seed=9))
        return first + run_batch(runner, works[0]) + run_batch(runner, works[1])

    expected = watch(Runner.of(model))
    for got, want in zip(watch(Runner.of(model.to(cuda))), expected, strict=True):
        assert {tensor.device.type for tensor in got.state.tensors.values()} == {"cpu"}
        torch.testing.assert_close(
            got.scores.action_probabilities_BTA(), want.scores.action_probabilities_BTA(), atol=1e-3, rtol=0
        )

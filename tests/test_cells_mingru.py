"""minGRU's parallel scan is its loop, forwards and in every gradient."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vidseq.cells.mingru import MinGru, ParallelScan, loop, scan


def a_recurrence(frames: int, *, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Decay and drive of T frames of 2 streams, and the state before them, in float64."""
    generator = torch.Generator().manual_seed(seed)
    decay_TBH = torch.rand(frames, 2, 3, generator=generator).double()
    drive_TBH, hidden_BH = torch.randn(frames, 2, 3, generator=generator), torch.randn(2, 3, generator=generator)
    return decay_TBH, drive_TBH.double(), hidden_BH.double()


@settings(max_examples=30)
@given(frames=st.integers(1, 70), seed=st.integers(0, 9))
def test_the_scan_equals_the_loop_at_every_length(frames: int, seed: int) -> None:
    recurrence = a_recurrence(frames, seed=seed)
    torch.testing.assert_close(scan(*recurrence), loop(*recurrence))


@pytest.mark.parametrize("frames", [1, 2, 3, 8, 21])
def test_the_gradient_of_the_scan_is_that_of_the_loop(frames: int) -> None:
    """With respect to decay, drive and the state that was carried in."""
    recurrence = [tensor.requires_grad_() for tensor in a_recurrence(frames)]
    weight_TBH = torch.randn(frames, 2, 3, dtype=torch.float64)
    expected = torch.autograd.grad((weight_TBH * loop(*recurrence).square()).sum(), recurrence)
    found = torch.autograd.grad((weight_TBH * ParallelScan.apply(*recurrence).square()).sum(), recurrence)
    torch.testing.assert_close(found, expected)


def test_the_gradient_of_the_scan_is_that_of_finite_differences() -> None:
    assert torch.autograd.gradcheck(ParallelScan.apply, [tensor.requires_grad_() for tensor in a_recurrence(5)])


def test_a_memory_that_never_fades_is_carried_over_a_thousand_frames() -> None:
    drive_TBH = torch.zeros(1000, 1, 1)
    carried_TBH = scan(torch.ones(1000, 1, 1), drive_TBH, torch.tensor([[7.0]]))
    assert torch.equal(carried_TBH, torch.full((1000, 1, 1), 7.0))


@torch.no_grad()
def test_mingru_computes_the_equations_of_its_paper() -> None:
    """arxiv:2410.01201, in linear space: z and n see the input alone."""
    torch.manual_seed(0)
    layer = MinGru(3, 2, learned_start=False).double()
    input_BTI, hidden_BH = torch.randn(1, 6, 3).double(), torch.randn(1, 2).double()
    found_BTH, memory = layer(input_BTI, {"h": hidden_BH}, None)
    weight, bias = layer.from_input.weight.tolist(), layer.from_input.bias.tolist()
    hidden = hidden_BH[0].tolist()
    for frame, values in enumerate(input_BTI[0].tolist()):
        rows = zip(weight, bias, strict=True)
        update_new = [math.fsum([b, *(w * x for w, x in zip(row, values, strict=True))]) for row, b in rows]
        for unit in range(2):
            update, new = 1 / (1 + math.exp(-update_new[unit])), update_new[2 + unit]
            hidden[unit] = (1 - update) * hidden[unit] + update * new
        torch.testing.assert_close(found_BTH[0, frame], torch.tensor(hidden).double())
    torch.testing.assert_close(memory["h"], found_BTH[:, -1])

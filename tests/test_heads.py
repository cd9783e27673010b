"""The action's running readout is what a plain formula over all frames so far would say, however they arrived."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from vidseq.config import HeadsConfig
from vidseq.heads import ActionHead, FrameHead
from vidseq.state import State

EVERY_READOUT = pytest.mark.parametrize(
    ("readout", "half_life_frames"),
    [("last", None), ("mean", None), ("mean", 3.0), ("statistics", None), ("statistics", 3.0), ("attention", None)],
)


def a_head(readout: str, half_life_frames: float | None) -> ActionHead:
    torch.manual_seed(0)
    config = HeadsConfig.model_validate({"action_labels": ("a", "b", "c"), "readout": readout})
    return ActionHead(config, hidden_size=8, half_life_frames=half_life_frames).eval()


def hidden(batch: int, frames: int) -> Tensor:
    return torch.randn(batch, frames, 8, generator=torch.Generator().manual_seed(3))


def weights_by_definition(head: ActionHead, hidden_TH: Tensor) -> Tensor:
    """How much each of these frames counts after the last of them, up to a common factor."""
    ages_T = torch.arange(len(hidden_TH) - 1, -1, -1)
    weights_T = head.decay**ages_T
    if head.readout == "last":
        weights_T = (ages_T == 0).float()
    if head.query is not None:
        weights_T = torch.softmax(head.query(hidden_TH).squeeze(1) / math.sqrt(8), dim=0)
    return weights_T


def by_definition(head: ActionHead, hidden_TH: Tensor) -> Tensor:
    """The logits after the last of these frames, by the definition of each readout."""
    return by_weights(head, hidden_TH, weights_by_definition(head, hidden_TH))


def by_weights(head: ActionHead, hidden_TH: Tensor, weights_T: Tensor) -> Tensor:
    read_H = averaged(hidden_TH, weights_T)
    if head.readout == "statistics":
        variance_H = averaged((hidden_TH - read_H).square(), weights_T)
        read_H = torch.cat([read_H, variance_H.clamp(min=1e-3).sqrt()])
    logits_A: Tensor = head.linear(read_H)
    return logits_A


def averaged(value_TH: Tensor, weights_T: Tensor) -> Tensor:
    return (weights_T[:, None] * value_TH).sum(dim=0) / weights_T.sum()


@EVERY_READOUT
@torch.no_grad()
def test_after_every_frame_the_action_is_the_readout_of_all_frames_so_far(
    readout: str, half_life_frames: float | None
) -> None:
    head, hidden_BTH = a_head(readout, half_life_frames), hidden(1, 150)  # longer than two blocks
    logits_BTA, _ = head(hidden_BTH)
    for frame in (0, 1, 62, 63, 64, 65, 149):
        expected_A = by_definition(head, hidden_BTH[0, : frame + 1])
        torch.testing.assert_close(logits_BTA[0, frame], expected_A, atol=1e-5, rtol=0)


@EVERY_READOUT
@settings(max_examples=20)
@given(cuts=st.sets(st.integers(1, 99), max_size=6))
@torch.no_grad()
def test_any_chunking_gives_the_one_shot_answer(readout: str, half_life_frames: float | None, cuts: set[int]) -> None:
    head, hidden_BTH = a_head(readout, half_life_frames), hidden(2, 100)
    whole_BTA, whole_state = head(hidden_BTH)
    state, pieces = State(), []
    for piece_BTH in hidden_BTH.tensor_split(sorted(cuts), dim=1):
        logits_BTA, state = head(piece_BTH, state)
        pieces.append(logits_BTA)
    torch.testing.assert_close(torch.cat(pieces, dim=1), whole_BTA, atol=1e-5, rtol=0)
    name = f"action.{readout}.mean"
    torch.testing.assert_close(state.tensors[name], whole_state.tensors[name], atol=1e-5, rtol=0)


@EVERY_READOUT
@torch.no_grad()
def test_rows_of_different_length_keep_the_state_of_their_own_last_frame(
    readout: str, half_life_frames: float | None
) -> None:
    head, hidden_BTH, lengths = a_head(readout, half_life_frames), hidden(3, 130), [130, 3, 64]
    _, together = head(hidden_BTH, None, torch.tensor(lengths))
    for row, length in enumerate(lengths):
        _, alone = head(hidden_BTH[row : row + 1, :length])
        for name, tensor in alone.tensors.items():
            torch.testing.assert_close(together.tensors[name][row : row + 1], tensor, atol=1e-5, rtol=0)


@torch.no_grad()
def test_attention_survives_logits_that_would_overflow() -> None:
    head, hidden_BTH = a_head("attention", None), 1e4 * hidden(1, 20)
    logits_BTA, _ = head(hidden_BTH)
    assert torch.isfinite(logits_BTA).all()


@EVERY_READOUT
@torch.no_grad()
def test_frames_before_a_gap_count_so_much_less_than_those_after_it(
    readout: str, half_life_frames: float | None
) -> None:
    """The mean by definition, of the frames before the gap by their weights times the factor."""
    head, hidden_BTH = a_head(readout, half_life_frames), hidden(1, 12)
    _, state = head(hidden_BTH[:, :8])
    faded = state.replace(head.faded(state.part(head.prefix), 0.25), prefix=head.prefix)
    logits_BTA, _ = head(hidden_BTH[:, 8:], faded)
    weights_T = weights_by_definition(head, hidden_BTH[0]) * torch.tensor([0.25] * 8 + [1.0] * 4)
    torch.testing.assert_close(logits_BTA[0, -1], by_weights(head, hidden_BTH[0], weights_T), atol=1e-5, rtol=0)


@torch.no_grad()
def test_a_forgotten_frame_of_great_attention_does_not_drown_what_follows() -> None:
    head = a_head("attention", None)
    loud_BTH, quiet_BTH = 1e4 * hidden(1, 20), hidden(1, 4)
    _, state = head(loud_BTH)
    assert state.tensors["action.attention.largest"] > 200
    forgotten = state.replace(head.faded(state.part(head.prefix), 0.0), prefix=head.prefix)
    torch.testing.assert_close(head(quiet_BTH, forgotten)[0], head(quiet_BTH)[0], atol=1e-5, rtol=0)


def test_the_frame_head_reads_each_frame_alone() -> None:
    torch.manual_seed(0)
    head = FrameHead(HeadsConfig(frame_labels=("x", "y")), hidden_size=8)
    hidden_BTH = hidden(2, 5)
    torch.testing.assert_close(head(hidden_BTH)[:, 2:3], head(hidden_BTH[:, 2:3]))


def test_what_one_readout_remembers_is_never_read_by_another() -> None:
    hidden_BTH, mean = hidden(1, 4), a_head("mean", None)
    _, of_attention = a_head("attention", None)(hidden_BTH)
    torch.testing.assert_close(mean(hidden_BTH, of_attention)[0], mean(hidden_BTH)[0])


@EVERY_READOUT
def test_lengths_on_the_cpu_serve_a_head_elsewhere(readout: str, half_life_frames: float | None) -> None:
    """The meta device computes no numbers, but refuses mixed devices as a GPU does."""
    head, hidden_BTH = a_head(readout, half_life_frames).to("meta"), hidden(2, 5).to("meta")
    logits_BTA, state = head(hidden_BTH, None, torch.tensor([5, 2]))
    assert logits_BTA.shape == (2, 5, 3)
    assert {tensor.device.type for tensor in state.tensors.values()} == {"meta"}

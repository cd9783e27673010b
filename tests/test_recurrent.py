"""Why the state is a value: any chunking, any batch and either way through the weights gives the same answer."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from vidseq.config import RecurrentConfig
from vidseq.errors import OfflineOnly
from vidseq.recurrent import Recurrent
from vidseq.state import State

CELLS = ["elman", "lstm", "gru"]
EVERY_CELL = pytest.mark.parametrize("cell", CELLS)
EVERY_DEPTH = pytest.mark.parametrize("num_layers", [1, 2, 3, 4])


def a_recurrent(cell: str, num_layers: int = 1, *, bidirectional: bool = False) -> Recurrent:
    torch.manual_seed(0)
    config = RecurrentConfig.model_validate(
        {"cell": cell, "num_layers": num_layers, "hidden_size": 8, "projection_size": 6, "bidirectional": bidirectional}
    )
    return Recurrent(config, feature_size=5).eval()


def features(batch: int, frames: int, seed: int = 1) -> Tensor:
    return torch.randn(batch, frames, 5, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def in_chunks(recurrent: Recurrent, feature_BTD: Tensor, cuts: list[int]) -> tuple[Tensor, State]:
    state, hiddens = State(), []
    for start, end in pairwise([0, *cuts, feature_BTD.shape[1]]):
        hidden_BTH, state = recurrent(feature_BTD[:, start:end], state)
        hiddens.append(hidden_BTH)
    return torch.cat(hiddens, dim=1), state


@EVERY_CELL
@EVERY_DEPTH
@settings(max_examples=15, deadline=None)
@given(cuts=st.sets(st.integers(1, 19)))
def test_any_chunking_gives_the_one_shot_answer(cell: str, num_layers: int, cuts: set[int]) -> None:
    recurrent, feature_BTD = a_recurrent(cell, num_layers), features(2, 20)
    whole_BTH, whole_state = in_chunks(recurrent, feature_BTD, [])
    pieces_BTH, pieces_state = in_chunks(recurrent, feature_BTD, sorted(cuts))
    torch.testing.assert_close(pieces_BTH, whole_BTH, atol=1e-5, rtol=0)
    for name, tensor in whole_state.tensors.items():
        torch.testing.assert_close(pieces_state.tensors[name], tensor, atol=1e-5, rtol=0)


@EVERY_CELL
@EVERY_DEPTH
@torch.no_grad()
def test_single_steps_equal_the_whole_sequence(cell: str, num_layers: int) -> None:
    recurrent, feature_BTD = a_recurrent(cell, num_layers), features(3, 12)
    whole_BTH, _ = recurrent(feature_BTD)
    state = None
    for frame in range(12):
        hidden_BTH, state = recurrent.steps(feature_BTD[:, frame : frame + 1], state, [1, 1, 1])
        torch.testing.assert_close(hidden_BTH[:, 0], whole_BTH[:, frame], atol=1e-5, rtol=0)


@EVERY_CELL
@torch.no_grad()
def test_a_step_continues_where_a_sequence_stopped(cell: str) -> None:
    recurrent, feature_BTD = a_recurrent(cell, 2), features(2, 9)
    whole_BTH, _ = recurrent(feature_BTD)
    _, state = recurrent(feature_BTD[:, :8])
    hidden_BTH, _ = recurrent.steps(feature_BTD[:, 8:], state, [1, 1])
    torch.testing.assert_close(hidden_BTH, whole_BTH[:, 8:], atol=1e-5, rtol=0)


@EVERY_CELL
@EVERY_DEPTH
@settings(max_examples=10, deadline=None)
@given(lengths=st.lists(st.integers(1, 6), min_size=1, max_size=5))
@torch.no_grad()
def test_steps_of_rows_that_end_early_equal_the_kernels_for_whole_sequences(
    cell: str, num_layers: int, lengths: list[int]
) -> None:
    recurrent, lengths = a_recurrent(cell, num_layers), sorted(lengths, reverse=True)
    feature_BTD = features(len(lengths), lengths[0])
    _, before = recurrent(features(len(lengths), 3, seed=2))
    stepped_BTH, stepped = recurrent.steps(feature_BTD, before, lengths)
    whole_BTH, whole = recurrent(feature_BTD, before, torch.tensor(lengths))
    torch.testing.assert_close(stepped_BTH, whole_BTH, atol=1e-5, rtol=0)
    for name, tensor in whole.tensors.items():
        torch.testing.assert_close(stepped.tensors[name], tensor, atol=1e-5, rtol=0)


@torch.no_grad()
def test_a_step_leaves_the_state_that_it_was_given_as_it_was() -> None:
    recurrent = a_recurrent("lstm", 2)
    state = recurrent.initial_state(2)
    recurrent.steps(features(2, 3), state, [3, 1])
    assert all(not tensor.any() for tensor in state.tensors.values())


def test_rows_that_are_not_in_order_are_our_own_mistake() -> None:
    with pytest.raises(AssertionError, match="longest first"):
        a_recurrent("gru").steps(features(2, 3), None, [1, 3])


@pytest.mark.parametrize("bidirectional", [False, True])
@EVERY_CELL
@settings(max_examples=10, deadline=None)
@given(lengths=st.lists(st.integers(1, 10), min_size=1, max_size=5))
@torch.no_grad()
def test_a_short_clip_beside_long_ones_equals_itself_alone(cell: str, bidirectional: bool, lengths: list[int]) -> None:
    recurrent = a_recurrent(cell, 2, bidirectional=bidirectional)
    feature_BTD = features(len(lengths), max(lengths))
    together_BTH, state = recurrent(feature_BTD, None, torch.tensor(lengths))
    for row, length in enumerate(lengths):
        alone_BTH, alone = recurrent(feature_BTD[row : row + 1, :length])
        torch.testing.assert_close(together_BTH[row : row + 1, :length], alone_BTH, atol=1e-5, rtol=0)
        for name, tensor in alone.tensors.items():
            torch.testing.assert_close(state.tensors[name][row : row + 1], tensor, atol=1e-5, rtol=0)


def test_what_pads_a_short_clip_does_not_matter() -> None:
    recurrent, feature_BTD = a_recurrent("gru", bidirectional=True), features(2, 6)
    spoilt_BTD = feature_BTD.clone()
    spoilt_BTD[0, 4:] = 1e6
    lengths_B = torch.tensor([4, 6])
    torch.testing.assert_close(recurrent(spoilt_BTD, None, lengths_B)[0], recurrent(feature_BTD, None, lengths_B)[0])


def test_a_bidirectional_model_cannot_step_and_refuses_a_state() -> None:
    recurrent = a_recurrent("gru", bidirectional=True)
    with pytest.raises(OfflineOnly, match="step"):
        recurrent.steps(features(1, 1), None, [1])
    with pytest.raises(OfflineOnly, match="state"):
        recurrent(features(1, 4), State({"recurrent.h": torch.zeros(1, 1, 8)}))


def test_an_lstm_starts_with_a_forget_bias_of_one() -> None:
    lstm = a_recurrent("lstm", 2).rnn
    assert lstm is not None
    for layer in range(2):
        bias = getattr(lstm, f"bias_ih_l{layer}") + getattr(lstm, f"bias_hh_l{layer}")
        assert torch.equal(bias[8:16], torch.ones(8))


@EVERY_CELL
def test_none_and_the_written_out_initial_state_are_the_same(cell: str) -> None:
    recurrent, feature_BTD = a_recurrent(cell, 3), features(2, 5)
    torch.testing.assert_close(recurrent(feature_BTD, recurrent.initial_state(2))[0], recurrent(feature_BTD)[0])

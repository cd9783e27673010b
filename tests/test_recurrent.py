"""Why the state is a value: any chunking, any batch and either way through the weights gives the same answer."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor, nn

from vidseq.config import RecurrentConfig
from vidseq.errors import OfflineOnly
from vidseq.recurrent import Recurrent
from vidseq.state import State, stack

RECURRENCES = ["elman", "lstm", "gru", "cho", "mut1", "mut2", "mut3", "mingru"]
WINDOWS = ["conv", "attention"]
EVERY_CELL = pytest.mark.parametrize("cell", RECURRENCES + WINDOWS)
EVERY_RECURRENCE = pytest.mark.parametrize("cell", RECURRENCES)
EVERY_LINK = pytest.mark.parametrize("between_layers", ["plain", "residual", "highway"])
EVERY_DEPTH = pytest.mark.parametrize("num_layers", [1, 2, 3, 4])


def a_recurrent(cell: str, num_layers: int = 1, **options: object) -> Recurrent:
    """With a window that is shorter than the sequences below, and starts that are not zero where they are learnt."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 8, "projection_size": 6, "window_frames": 4}
    config = RecurrentConfig.model_validate({"cell": cell, "num_layers": num_layers, **sizes, **options})
    recurrent = Recurrent(config, feature_size=5).eval()
    for name, parameter in recurrent.named_parameters():
        if ".start_" in name:
            nn.init.normal_(parameter)
    return recurrent


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
@settings(max_examples=5)
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
@settings(max_examples=5)
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


@EVERY_CELL
@torch.no_grad()
def test_a_step_leaves_the_state_that_it_was_given_as_it_was(cell: str) -> None:
    recurrent = a_recurrent(cell, 2)
    _, state = recurrent(features(2, 5))
    before = {name: tensor.clone() for name, tensor in state.tensors.items()}
    recurrent.steps(features(2, 3), state, [3, 1])
    assert all(torch.equal(state.tensors[name], tensor) for name, tensor in before.items())


@EVERY_CELL
@torch.no_grad()
def test_streams_that_are_stacked_go_on_as_each_does_alone(cell: str) -> None:
    recurrent, feature_BTD = a_recurrent(cell, 2), features(3, 4)
    states = [recurrent(features(1, frames, seed=frames))[1] for frames in (1, 3, 9)]
    together_BTH, state = recurrent(feature_BTD, stack(states))
    for row, (before, after) in enumerate(zip(states, state.split(), strict=True)):
        alone_BTH, alone = recurrent(feature_BTD[row : row + 1], before)
        torch.testing.assert_close(together_BTH[row : row + 1], alone_BTH, atol=1e-5, rtol=0)
        torch.testing.assert_close(dict(after.tensors), dict(alone.tensors), atol=1e-5, rtol=0)


def test_rows_that_are_not_in_order_are_our_own_mistake() -> None:
    with pytest.raises(AssertionError, match="longest first"):
        a_recurrent("gru").steps(features(2, 3), None, [1, 3])


@pytest.mark.parametrize(
    ("cell", "bidirectional"), [(c, False) for c in RECURRENCES + WINDOWS] + [(c, True) for c in RECURRENCES]
)
@settings(max_examples=5)
@given(lengths=st.lists(st.integers(1, 10), min_size=1, max_size=5))
@torch.no_grad()
def test_a_short_clip_beside_long_ones_equals_itself_alone(cell: str, bidirectional: bool, lengths: list[int]) -> None:
    recurrent = a_recurrent(cell, 2, bidirectional=bidirectional, between_layers="residual")
    feature_BTD = features(len(lengths), max(lengths))
    together_BTH, state = recurrent(feature_BTD, None, torch.tensor(lengths))
    for row, length in enumerate(lengths):
        alone_BTH, alone = recurrent(feature_BTD[row : row + 1, :length])
        torch.testing.assert_close(together_BTH[row : row + 1, :length], alone_BTH, atol=1e-5, rtol=0)
        for name, tensor in alone.tensors.items():
            torch.testing.assert_close(state.tensors[name][row : row + 1], tensor, atol=1e-5, rtol=0)


@EVERY_CELL
def test_what_pads_a_short_clip_does_not_matter(cell: str) -> None:
    recurrent, feature_BTD = a_recurrent(cell, 2, between_layers="highway"), features(2, 6)
    spoilt_BTD = feature_BTD.clone()
    spoilt_BTD[0, 4:] = 1e6
    lengths_B = torch.tensor([4, 6])
    hidden_BTH, state = recurrent(feature_BTD, None, lengths_B)
    spoilt_BTH, spoilt = recurrent(spoilt_BTD, None, lengths_B)
    torch.testing.assert_close(spoilt_BTH, hidden_BTH)
    torch.testing.assert_close(dict(spoilt.tensors), dict(state.tensors))
    assert not hidden_BTH[0, 4:].any()


@torch.no_grad()
@EVERY_RECURRENCE
def test_the_backward_half_hears_a_clip_from_its_end(cell: str) -> None:
    recurrent, feature_BTD = a_recurrent(cell, bidirectional=True), features(1, 6)
    changed_BTD = feature_BTD.clone()
    changed_BTD[0, 3, 0] += 1.0
    difference_TH = (recurrent(changed_BTD)[0] - recurrent(feature_BTD)[0])[0].abs()
    assert difference_TH[:3, :8].max() == 0 and difference_TH[3:, :8].amax(dim=1).min() > 0
    assert difference_TH[4:, 8:].max() == 0 and difference_TH[:4, 8:].amax(dim=1).min() > 0


def test_a_bidirectional_model_cannot_step_and_refuses_a_state() -> None:
    recurrent = a_recurrent("gru", bidirectional=True)
    with pytest.raises(OfflineOnly, match="step"):
        recurrent.steps(features(1, 1), None, [1])
    with pytest.raises(OfflineOnly, match="state"):
        recurrent(features(1, 4), State({"recurrent.0.h": torch.zeros(1, 8)}))


def test_an_lstm_starts_with_a_forget_bias_of_one() -> None:
    for layer in a_recurrent("lstm", 2).layers:
        bias = layer.kernel.bias_ih_l0 + layer.kernel.bias_hh_l0
        assert torch.equal(bias[8:16], torch.ones(8))


@pytest.mark.parametrize(
    ("cell", "learned_start"), [(c, False) for c in RECURRENCES + WINDOWS] + [(c, True) for c in RECURRENCES]
)
@torch.no_grad()
def test_none_and_the_written_out_initial_state_are_the_same(cell: str, learned_start: bool) -> None:
    recurrent, feature_BTD = a_recurrent(cell, 3, learned_start=learned_start), features(2, 5)
    expected_BTH, _ = recurrent(feature_BTD)
    start = recurrent.initial_state(2)
    torch.testing.assert_close(recurrent(feature_BTD, start)[0], expected_BTH)
    torch.testing.assert_close(recurrent.steps(feature_BTD, start, [5, 5])[0], expected_BTH, atol=1e-5, rtol=0)


@pytest.mark.parametrize("bidirectional", [False, True])
@EVERY_RECURRENCE
def test_a_start_is_learnt_from_sequences_that_begin_there(cell: str, bidirectional: bool) -> None:
    recurrent = a_recurrent(cell, 2, learned_start=True, bidirectional=bidirectional)
    recurrent(features(2, 3))[0].square().sum().backward()
    starts = {name: parameter for name, parameter in recurrent.named_parameters() if ".start_" in name}
    assert len(starts) == 2 * (1 + bidirectional) * (2 if cell == "lstm" else 1)
    assert all(parameter.grad.norm() > 0 for parameter in starts.values())


@EVERY_CELL
def test_a_sequence_teaches_through_the_state_that_went_into_it(cell: str) -> None:
    """The gradient of two chunks is that of the whole; a state that was cut between them lets nothing through."""
    recurrent, feature_BTD = a_recurrent(cell, 2), features(2, 8).requires_grad_()
    (whole_BTD,) = torch.autograd.grad(recurrent(feature_BTD)[0][:, -1].sum(), feature_BTD)
    _, state = recurrent(feature_BTD[:, :6])
    (chunks_BTD,) = torch.autograd.grad(recurrent(feature_BTD[:, 6:], state)[0][:, -1].sum(), feature_BTD)
    torch.testing.assert_close(chunks_BTD, whole_BTD, atol=1e-5, rtol=0)
    assert whole_BTD[:, 5].norm() > 0
    cut = State({name: tensor.detach() for name, tensor in recurrent(feature_BTD[:, :6])[1].tensors.items()})
    (cut_BTD,) = torch.autograd.grad(recurrent(feature_BTD[:, 6:], cut)[0][:, -1].sum(), feature_BTD)
    assert not cut_BTD[:, :6].any()


@EVERY_CELL
@EVERY_LINK
def test_every_weight_is_learnt(cell: str, between_layers: str) -> None:
    recurrent = a_recurrent(cell, 3, between_layers=between_layers)
    hidden_BTH, _ = recurrent(features(4, 12))
    hidden_BTH.square().sum().backward()
    assert [name for name, weight in recurrent.named_parameters() if weight.grad is None or not weight.grad.any()] == []


@pytest.mark.parametrize(
    ("cell", "learned_start"), [(c, False) for c in RECURRENCES + WINDOWS] + [(c, True) for c in RECURRENCES]
)
@torch.no_grad()
def test_a_memory_fades_towards_its_start_by_products(cell: str, learned_start: bool) -> None:
    recurrent = a_recurrent(cell, 2, learned_start=learned_start)
    _, state = recurrent(features(2, 7))
    assert all(torch.equal(recurrent.faded(state, 1.0).tensors[name], tensor) for name, tensor in state.tensors.items())
    once, twice = recurrent.faded(state, 0.125), recurrent.faded(recurrent.faded(state, 0.25), 0.5)
    torch.testing.assert_close(dict(twice.tensors), dict(once.tensors))
    after_BTH, _ = recurrent(features(2, 3), recurrent.faded(state, 0.0))
    torch.testing.assert_close(after_BTH, recurrent(features(2, 3))[0])


@pytest.mark.parametrize("bidirectional", [False, True])
@EVERY_RECURRENCE
def test_the_weights_on_the_way_back_in_time_are_square(cell: str, bidirectional: bool) -> None:
    weights = a_recurrent(cell, 2, bidirectional=bidirectional).recurrent_weights()
    num_gates = {"elman": 1, "lstm": 4, "mut1": 2, "mingru": 0}.get(cell, 3)
    assert [len(weight_of_gate) for weight_of_gate in weights] == [num_gates * (1 + bidirectional)] * 2
    assert {tuple(weight_HH.shape) for layer in weights for weight_HH in layer.values()} <= {(8, 8)}


@pytest.mark.parametrize("cell", WINDOWS)
def test_a_window_of_the_past_has_neither_a_backward_half_nor_a_hidden_start(cell: str) -> None:
    with pytest.raises(ValidationError, match="cannot be bidirectional"):
        a_recurrent(cell, bidirectional=True)
    with pytest.raises(ValidationError, match="no learned_start"):
        a_recurrent(cell, learned_start=True)


def test_attention_wants_a_hidden_size_that_its_heads_can_share() -> None:
    with pytest.raises(ValidationError, match="hidden_size 10 does not divide among 4 attention heads"):
        a_recurrent("attention", hidden_size=10)


@torch.no_grad()
def test_features_are_normalised_by_what_was_learnt_of_all_frames() -> None:
    clips = [5.0 + 3.0 * features(1, frames, seed=frames)[0] for frames in (3, 20, 40)]
    for clip_TD in clips:
        clip_TD[:, 4] = 7.0  # never changes
    norm = a_recurrent("gru", normalisation="standard").norm
    norm.learn(clips)
    normal_ND = norm(torch.cat(clips))
    torch.testing.assert_close(normal_ND.mean(dim=0), torch.zeros(5), atol=1e-5, rtol=0)
    torch.testing.assert_close(normal_ND.std(dim=0, correction=0), torch.tensor([1.0, 1.0, 1.0, 1.0, 0.0]))


def test_a_learnt_normalisation_is_kept_with_the_weights_and_is_no_weight() -> None:
    recurrent = a_recurrent("gru", normalisation="standard")
    recurrent.learn_normalisation([2.0 + features(1, 9)[0]])
    fresh = a_recurrent("gru", normalisation="standard")
    assert not torch.equal(fresh(features(1, 2))[0], recurrent(features(1, 2))[0])
    fresh.load_state_dict(recurrent.state_dict())
    torch.testing.assert_close(fresh(features(1, 2))[0], recurrent(features(1, 2))[0])
    assert [name for name, _ in recurrent.named_parameters() if name.startswith("norm")] == []


@pytest.mark.gpu
@EVERY_CELL
@torch.no_grad()
def test_a_gpu_says_what_the_cpu_says(cell: str, cuda: torch.device) -> None:
    """Whole sequences of unequal lengths, then a few steps from their state, then a gap in time.

    cuDNN may round products to TF32.
    """
    on_cpu, on_gpu = (a_recurrent(cell, 3, between_layers="highway", normalisation="standard") for _ in range(2))
    on_gpu.to(cuda)
    feature_BTD, lengths_B = features(3, 20), torch.tensor([20, 12, 3])
    expected_BTH, before = on_cpu(feature_BTD, None, lengths_B)
    found_BTH, state = on_gpu(feature_BTD.to(cuda), None, lengths_B)
    torch.testing.assert_close(found_BTH.cpu(), expected_BTH, atol=1e-3, rtol=0)
    expected_BTH, _ = on_cpu.steps(feature_BTD[:, :3], before, [3, 2, 1])
    found_BTH, _ = on_gpu.steps(feature_BTD[:, :3].to(cuda), state, [3, 2, 1])
    torch.testing.assert_close(found_BTH.cpu(), expected_BTH, atol=1e-3, rtol=0)
    faded = on_gpu.faded(state.to("cpu"), 0.5)  # a stream's state rests on the CPU
    torch.testing.assert_close(dict(faded.tensors), dict(on_cpu.faded(before, 0.5).tensors), atol=1e-3, rtol=0)


def test_dropout_spares_what_a_residual_carries() -> None:
    recurrent, feature_BTD = (
        a_recurrent("gru", between_layers="residual", projection_size=8, dropout=0.9),
        features(4, 9),
    )
    layer, link, projected = recurrent.layers[0], recurrent.links[0], []
    link.register_forward_hook(lambda _, inputs, output: projected.append((inputs[0], output)))
    recurrent.train()(feature_BTD)
    ((input_BTP, output_BTH),) = projected
    said_BTH = output_BTH - input_BTP
    expected_BTH, _ = layer(input_BTP, layer.start(4), None)
    dropped_BTH = said_BTH.abs() < 1e-6
    assert 0.8 < dropped_BTH.float().mean() < 1.0
    torch.testing.assert_close(said_BTH[~dropped_BTH], 10 * expected_BTH[~dropped_BTH], atol=1e-5, rtol=1e-4)

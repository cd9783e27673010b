"""The whole model: pixels and state in, scores and state out, in any chunks."""

from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from tests.toy_models import toy_config, toy_model
from vidseq.config import MotionConfig, Picture, RecurrentConfig, Sampling
from vidseq.errors import OptionError, StateError
from vidseq.model import Scores, SequenceModel, VideoModel, check_state_size
from vidseq.motion import Motion
from vidseq.sampling import sample
from vidseq.state import MAX_STATE_BYTES, State, StateHeader, stack
from vidseq.video import Reader

EVERY_CELL = pytest.mark.parametrize("cell", ["elman", "lstm", "gru"])


@pytest.fixture(scope="session")
def real_pixels(shared_data: Path) -> torch.Tensor:
    """pixels_THWC of one real clip, every frame, small."""
    with Reader(shared_data / "fight" / "fight" / "fi001.mp4", picture=Picture(size=32)) as reader:
        chunks = [clip.pixels_THWC for clip in sample(reader, Sampling(frames_per_second="native"))]
    return torch.cat([torch.from_numpy(chunk) for chunk in chunks])


@torch.no_grad()
def in_chunks(model: VideoModel, pixels_THWC: torch.Tensor, cuts: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    state, actions, frames = State(), [], []
    for start, end in pairwise([0, *cuts, len(pixels_THWC)]):
        scores, state = model(pixels_THWC[start:end], state)
        actions.append(scores.action_probabilities_BTA())
        frames.append(scores.frame_probabilities_BTL())
    return torch.cat(actions, dim=1), torch.cat(frames, dim=1)


@EVERY_CELL
@pytest.mark.parametrize("num_layers", [1, 2, 3])
@pytest.mark.parametrize("readout", ["last", "mean", "attention"])
@settings(max_examples=4, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=st.sets(st.integers(1, 52), max_size=8))
def test_any_chunking_of_a_real_clip_gives_the_one_shot_answer(
    real_pixels: torch.Tensor, cell: str, num_layers: int, readout: str, cuts: set[int]
) -> None:
    model = toy_model(toy_config(cell=cell, num_layers=num_layers, readout=readout))
    whole_action, whole_frame = in_chunks(model, real_pixels, [])
    action, frame = in_chunks(model, real_pixels, sorted(cuts))
    torch.testing.assert_close(action, whole_action, atol=1e-5, rtol=0)
    torch.testing.assert_close(frame, whole_frame, atol=1e-5, rtol=0)


@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=st.sets(st.integers(1, 52), max_size=8))
def test_any_chunking_gives_the_one_shot_answer_where_motion_is_seen_too(
    real_pixels: torch.Tensor, cuts: set[int]
) -> None:
    model = toy_model(toy_config(motion=MotionConfig(maps=("last", "middle"), pooled=True), readout="statistics"))
    whole_action, whole_frame = in_chunks(model, real_pixels, [])
    action, frame = in_chunks(model, real_pixels, sorted(cuts))
    torch.testing.assert_close(action, whole_action, atol=1e-5, rtol=0)
    torch.testing.assert_close(frame, whole_frame, atol=1e-5, rtol=0)


@EVERY_CELL
@torch.no_grad()
def test_stepping_stacked_streams_equals_each_stream_alone(cell: str) -> None:
    sequence = toy_model(toy_config(cell=cell, num_layers=2)).sequence
    feature_BTD = torch.randn(4, 6, sequence.recurrent.norm.normalized_shape[0])
    state = stack([sequence.initial_state(1) for _ in range(4)])
    for frame in range(6):
        together, state = sequence.steps(feature_BTD[:, frame : frame + 1], state, [1] * 4)
    for row in range(4):
        alone, _ = sequence(feature_BTD[row : row + 1])
        torch.testing.assert_close(
            together.action_logits_BTA[row, 0], alone.action_logits_BTA[0, -1], atol=1e-5, rtol=0
        )


EVERY_READOUT = pytest.mark.parametrize("readout", ["last", "mean", "attention"])


@torch.no_grad()
def after_three_frames(model: VideoModel) -> State:
    return model(torch.randint(0, 255, (3, 32, 32, 3), dtype=torch.uint8))[1]


@EVERY_READOUT
@EVERY_CELL
def test_a_memory_that_fades_by_one_is_what_it_was(cell: str, readout: str) -> None:
    model = toy_model(toy_config(cell=cell, readout=readout))
    state = after_three_frames(model)
    faded = model.sequence.decayed(state, 1.0)
    assert faded.tensors.keys() == state.tensors.keys()
    assert all(torch.equal(faded.tensors[name], tensor) for name, tensor in state.tensors.items())


@EVERY_READOUT
@EVERY_CELL
@torch.no_grad()
def test_a_memory_that_has_faded_to_nothing_is_a_new_start(cell: str, readout: str) -> None:
    model = toy_model(toy_config(cell=cell, num_layers=2, readout=readout))
    pixels_THWC = torch.randint(0, 255, (4, 32, 32, 3), dtype=torch.uint8)
    faded = model.sequence.decayed(after_three_frames(model), 0.0)
    (again, _), (fresh, _) = model(pixels_THWC, faded), model(pixels_THWC)
    torch.testing.assert_close(again.action_logits_BTA, fresh.action_logits_BTA, atol=1e-6, rtol=0)
    torch.testing.assert_close(again.frame_logits_BTL, fresh.frame_logits_BTL, atol=1e-6, rtol=0)


@EVERY_READOUT
@torch.no_grad()
def test_two_gaps_fade_a_memory_by_the_product_of_their_factors(readout: str) -> None:
    model = toy_model(toy_config(cell="lstm", readout=readout))
    state, decayed = after_three_frames(model), model.sequence.decayed
    once, twice = decayed(state, 0.125), decayed(decayed(state, 0.25), 0.5)
    torch.testing.assert_close(dict(twice.tensors), dict(once.tensors))
    torch.testing.assert_close(once.tensors["recurrent.0.c"], state.tensors["recurrent.0.c"] / 8)


@pytest.mark.parametrize("factor", [-0.1, 1.1, float("nan")])
def test_a_memory_neither_grows_nor_turns_by_fading(factor: float) -> None:
    model = toy_model(toy_config())
    with pytest.raises(AssertionError, match="from 0 to 1"):
        model.sequence.decayed(after_three_frames(model), factor)


def test_fading_needs_no_memory() -> None:
    for config in (toy_config(cell="none", action_labels=()), toy_config(bidirectional=True, action_labels=())):
        assert toy_model(config).sequence.decayed(State(), 0.5).tensors == {}


def test_scores_split_into_rows_without_their_padding_and_join_again() -> None:
    action_BTA, frame_BTL = torch.randn(2, 5, 3), torch.randn(2, 5, 4)
    long, short = Scores(action_BTA, frame_BTL).split([5, 2])
    torch.testing.assert_close(long.action_logits_BTA, action_BTA[:1])
    torch.testing.assert_close(short.frame_logits_BTL, frame_BTL[1:, :2])
    joined = Scores.joined([long, short])
    torch.testing.assert_close(joined.action_logits_BTA, torch.cat([action_BTA[:1], action_BTA[1:, :2]], dim=1))


def test_scores_of_one_head_split_and_join_too() -> None:
    (row,) = Scores(None, torch.randn(1, 2, 3)).split([2])
    joined = Scores.joined([row, row])
    assert joined.action_logits_BTA is None and joined.frame_logits_BTL.shape == (1, 4, 3)


def test_an_empty_chunk_is_the_identity() -> None:
    model = toy_model(toy_config())
    _, state = model(torch.zeros(3, 32, 32, 3, dtype=torch.uint8))
    scores, same = model(torch.zeros(0, 32, 32, 3, dtype=torch.uint8), state)
    assert scores.action_logits_BTA.shape == (1, 0, 3)
    assert all(torch.equal(same.tensors[name], tensor) for name, tensor in state.tensors.items())


def test_the_state_is_small() -> None:
    """Of the largest model that a person would choose: what a stream remembers fits, as bytes."""
    recurrent = RecurrentConfig(cell="lstm", num_layers=4, hidden_size=512)
    config = toy_config(readout="attention").model_copy(update={"recurrent": recurrent})
    state = SequenceModel(config, feature_size=8).initial_state(1)
    assert 16 * 1024 < len(state.to_bytes(StateHeader(trunk="0" * 64, cell="lstm", dtype="float32"))) < 64 * 1024


@pytest.mark.parametrize(
    ("recurrent", "num_bytes"),
    [
        ({"cell": "attention", "window_frames": 128, "num_layers": 2}, "66,304"),
        ({"cell": "lstm", "hidden_size": 4096, "num_layers": 4}, "147,464"),
    ],
)
def test_a_model_whose_streams_would_remember_too_much_is_refused_before_it_is_trained(
    recurrent: dict[str, object], num_bytes: str
) -> None:
    config = toy_config().model_copy(update={"recurrent": RecurrentConfig.model_validate(recurrent)})
    with pytest.raises(OptionError, match=rf"would remember {num_bytes} bytes, and at most 61,440 are allowed"):
        check_state_size(config)


def test_what_motion_remembers_counts_too() -> None:
    check_state_size(toy_config(), Motion(MotionConfig(grid=10), 1280, (128,)))
    with pytest.raises(OptionError, match=r"would remember 102,\d{3} bytes.*fewer maps or channels"):
        check_state_size(toy_config(), Motion(MotionConfig(grid=10), 1280, (512,)))


def test_a_model_that_needs_the_whole_video_may_remember_more() -> None:
    large = RecurrentConfig(cell="lstm", hidden_size=4096, num_layers=4)
    config = toy_config(sampling=Sampling(max_frames=8)).model_copy(update={"recurrent": large})
    check_state_size(config)
    config = toy_config().model_copy(update={"recurrent": large.model_copy(update={"bidirectional": True})})
    check_state_size(config)


def test_the_largest_state_that_is_allowed_can_be_written() -> None:
    """Names and labels beside it: with twenty labels of each kind."""
    labels = tuple(f"a label of some length, number {number}" for number in range(20))
    recurrent = RecurrentConfig(cell="attention", window_frames=58, num_layers=4, normalisation="standard")
    config = toy_config(action_labels=labels, frame_labels=labels, background=None, readout="attention")
    config = config.model_copy(update={"recurrent": recurrent})
    check_state_size(config)
    state = SequenceModel(config, feature_size=8).initial_state(1)
    said = state.replace({"action": torch.zeros(1, 20), "frame": torch.zeros(1, 20)}, prefix="session")
    assert 60_000 < len(said.to_bytes(StateHeader(trunk="0" * 64, cell="attention", dtype="float32"))) < MAX_STATE_BYTES


def test_a_state_that_was_written_out_is_read_back_by_its_own_model_only() -> None:
    header = StateHeader(trunk="0" * 64, cell="gru", dtype="float32")
    mean, attention = (toy_model(toy_config(readout=readout)) for readout in ("mean", "attention"))
    _, state = mean(torch.zeros(1, 32, 32, 3, dtype=torch.uint8))
    again = State.from_bytes(state.to_bytes(header), header=header, like=mean.sequence.initial_state(1))
    assert again.tensors.keys() == state.tensors.keys()
    with pytest.raises(StateError, match=r"action\.mean\.weight"):
        State.from_bytes(state.to_bytes(header), header=header, like=attention.sequence.initial_state(1))


@pytest.mark.parametrize("readout", ["mean", "attention"])
def test_a_bidirectional_model_does_not_read_its_action_from_the_last_frame(readout: str) -> None:
    assert toy_config(bidirectional=True, readout=readout).recurrent.bidirectional
    assert toy_config(bidirectional=True, readout="last", action_labels=()).recurrent.bidirectional
    with pytest.raises(ValidationError, match="backward half"):
        toy_config(bidirectional=True, readout="last")


def test_a_model_may_have_one_head_only() -> None:
    pixels_THWC = torch.zeros(2, 32, 32, 3, dtype=torch.uint8)
    frames_only, _ = toy_model(toy_config(action_labels=()))(pixels_THWC)
    action_only, _ = toy_model(toy_config(frame_labels=(), background=None))(pixels_THWC)
    assert frames_only.action_logits_BTA is None and frames_only.frame_logits_BTL.shape == (1, 2, 3)
    assert action_only.frame_logits_BTL is None and action_only.action_logits_BTA.shape == (1, 2, 3)

"""Gradient health tells how far back in time a model can learn, and says so in words a person can act on."""

from typing import Any

import pytest
import torch
from torch.nn import functional

from tests.toy_models import ACTIONS, toy_config
from training.data.example import Example, one_hot
from training.data.targets import IGNORED
from training.measure.gradient_health import Fade, GradientHealth, measure, singular_values, why_not_measured
from vidseq.config import Sampling
from vidseq.errors import OptionError
from vidseq.model import SequenceModel
from vidseq.state import State

FEATURE_SIZE = 4


def a_model(*, seed: int = 0, **options: Any) -> SequenceModel:
    torch.manual_seed(seed)
    return SequenceModel(toy_config(**options), feature_size=FEATURE_SIZE).eval()


def elman_with_recurrence(scale: float) -> SequenceModel:
    """Whose recurrent weights turn the hidden state and multiply its length by `scale`."""
    model = a_model(cell="elman", readout="last", frame_labels=(), background=None)
    (weight_HH,) = (p for name, p in model.recurrent.named_parameters() if "weight_hh" in name)
    with torch.no_grad():
        torch.nn.init.orthogonal_(weight_HH, gain=scale)
    return model


def clips(num: int, *, num_frames: int, scale: float = 1.0, action: int | None = 1) -> list[Example]:
    generator = torch.Generator().manual_seed(3)
    target_A = None if action is None else one_hot(action, num_labels=len(ACTIONS))
    return [
        Example(
            scale * torch.randn(num_frames, FEATURE_SIZE, generator=generator), target_A, torch.zeros(num_frames).long()
        )
        for _ in range(num)
    ]


def last_loss(model: SequenceModel, feature_TD: torch.Tensor, *, frame: int, nudge_H: torch.Tensor) -> torch.Tensor:
    """The loss of the last answer when the hidden state after `frame` is nudged, and the readout has not noticed."""
    _, state = model(feature_TD[None, : frame + 1])
    nudged = {"recurrent.0.h": state.tensors["recurrent.0.h"] + nudge_H}
    _, after = model(feature_TD[None, frame + 1 : -1], State(state.tensors | nudged))
    _, plain = model(feature_TD[None, :-1])
    heads = {name: tensor for name, tensor in plain.tensors.items() if not name.startswith("recurrent.")}
    scores, _ = model(feature_TD[None, -1:], State(after.tensors | heads))
    action_loss = functional.cross_entropy(scores.action_logits_BTA[0, -1], torch.tensor(1))
    return action_loss + functional.cross_entropy(scores.frame_logits_BTL[0, -1], torch.tensor(0))


@pytest.mark.parametrize("readout", ["last", "mean", "attention"])
@pytest.mark.parametrize("cell", ["elman", "gru", "lstm", "cho", "mut1", "mut2", "mut3", "mingru"])
def test_the_gradient_is_what_a_nudge_of_the_hidden_state_does_to_the_last_answer(cell: str, readout: str) -> None:
    model = a_model(cell=cell, readout=readout)
    (example,) = clips(1, num_frames=7)
    (norm_K,) = measure(model, [example]).after.gradient_norm_LK
    model, feature_TD = model.double(), example.feature_TD.double()
    for steps_back in (1, 2, 5):
        nudges_HH = 1e-5 * torch.eye(16, dtype=torch.float64)
        there = {"frame": 6 - steps_back}
        with torch.no_grad():
            up = torch.stack([last_loss(model, feature_TD, nudge_H=nudge_H, **there) for nudge_H in nudges_HH])
            down = torch.stack([last_loss(model, feature_TD, nudge_H=-nudge_H, **there) for nudge_H in nudges_HH])
        assert norm_K[steps_back - 1] == pytest.approx(((up - down) / 2e-5).norm().item(), rel=1e-4)


def test_a_contracting_recurrence_loses_its_factor_at_every_step() -> None:
    model = elman_with_recurrence(0.5)
    ratio_K = measure(model, clips(3, num_frames=30)).after.ratio_K
    assert singular_values(model) == pytest.approx((0.5,))
    assert ratio_K[0] == 1.0
    assert all(ratio <= 0.5**steps_back for steps_back, ratio in enumerate(ratio_K))


def test_a_gradient_that_fades_is_told_in_steps_seconds_and_with_what_to_try() -> None:
    health = measure(elman_with_recurrence(0.5), clips(3, num_frames=64))
    (warning,) = health.warnings
    assert "the gradient 63 steps back (7.9 s) is " in warning
    assert "this elman cannot learn what your clips of 8 s need; try --cell gru" in warning


def test_without_a_sampling_rate_steps_are_told_in_frames() -> None:
    model = a_model(cell="elman", readout="last", sampling=Sampling(frames_per_second="native"))
    (warning,) = measure(model, clips(3, num_frames=64)).warnings
    assert "your clips of 64 frames need" in warning


def test_a_gradient_that_grows_is_told() -> None:
    """Features of nothing leave the hidden state near 0, where tanh does not dampen."""
    model = elman_with_recurrence(2.0)
    with torch.no_grad():
        for name, parameter in model.recurrent.named_parameters():
            if "bias" in name or "projection" in name:
                parameter.zero_()
    (warning,) = measure(model, clips(3, num_frames=20)).warnings
    assert "the gradient 19 steps back is 3e5 times that 1 step back: it explodes" in warning


def test_a_recurrence_that_keeps_its_gradient_is_not_warned_of() -> None:
    fade = Fade(gradient_norm_LK=((0.5,) * 40,))
    assert a_health(after=fade).warnings == ()
    assert fade.reach_steps == 40


def a_health(**fields: Any) -> GradientHealth:
    return GradientHealth.model_validate(
        {"cell": "gru", "readout": "last", "frames_per_second": 8.0, "num_clips": 3, "clip_steps": 40} | fields
    )


def test_updates_that_are_nearly_all_clipped_are_told() -> None:
    fade = Fade(gradient_norm_LK=((1.0, 1.0),))
    (warning,) = a_health(after=fade, clipped_share=0.95).warnings
    assert warning.startswith("95% of the updates were clipped")
    assert a_health(after=fade, clipped_share=0.5).warnings == ()


def test_a_readout_that_hears_every_moment_is_told_apart_from_one_that_hears_the_last() -> None:
    fade = Fade(gradient_norm_LK=(tuple(0.1**steps for steps in range(39)),))
    (warning,) = a_health(after=fade, readout="mean").warnings
    assert "cannot learn to link what lies more than 0.62 s apart in your clips of 5 s" in warning
    assert "readout 'mean' still hears every moment by itself" in warning


def test_each_layer_has_its_own_gradient() -> None:
    model = a_model(num_layers=3)
    health = measure(model, clips(2, num_frames=9), untrained=a_model(num_layers=3, seed=1))
    assert [len(norm_K) for norm_K in health.after.gradient_norm_LK] == [8] * 3
    assert len(health.singular_value_L) == 3
    assert health.before is not None
    assert health.before != health.after


def test_the_longest_clips_are_measured_and_those_without_a_label_are_not() -> None:
    unlabelled = [
        Example(example.feature_TD, None, torch.full((50,), IGNORED))
        for example in clips(4, num_frames=50, action=None)
    ]
    health = measure(a_model(), [*clips(20, num_frames=5), *clips(16, num_frames=12), *unlabelled])
    assert health.num_clips == 16
    assert len(health.after.ratio_K) == 11
    with pytest.raises(OptionError, match="no clip has two frames and a label"):
        measure(a_model(), unlabelled)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"cell": "none"}, "cell 'none' has no recurrent path"),
        ({"cell": "conv"}, "cell 'conv' has no recurrent path"),
        ({"cell": "attention"}, "cell 'attention' has no recurrent path"),
        ({"bidirectional": True}, "from both ends at once"),
    ],
)
def test_where_there_is_no_way_back_through_time_a_sentence_says_so(options: dict[str, Any], reason: str) -> None:
    model = a_model(**options)
    assert reason in (why_not_measured(model) or "")
    with pytest.raises(OptionError, match=reason):
        measure(model, clips(1, num_frames=5))

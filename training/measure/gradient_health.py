"""How far back in time a model can learn: gradients at each step back, measured on clips. Knows nothing of drawing.

    h_0 -> h_1 -> ... -> h_{T-2} -> h_{T-1} -> h_T -> answer -> loss
                                    1 back                          |d loss / d h_{T-k}|,  k = 1, 2, 3 ...

The answer is that of the last frame, and the running mean of the readout is cut, so that the recurrence is the only way
back: what fades along it cannot be learnt from (arxiv:1211.5063).

Shape letters: B clips, T frames, D feature size, A action labels, L layers, H hidden size, K steps back.
"""

import copy
import math
import statistics
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from training.data.example import Example
from training.data.targets import IGNORED, delayed
from vidseq.config import Config, Readout
from vidseq.errors import OptionError
from vidseq.model import Scores, SequenceModel
from vidseq.recurrent import PREFIX
from vidseq.state import State

MAX_CLIPS = 16
MAX_STEPS = 256
FADED, GROWN = 1e-4, 1e3  # shares of the gradient one step back, below and above which a person is warned
OFTEN = 0.9  # share of clipped updates

_ADVICE = {
    "elman": "try --cell gru",
    "gru": "try --cell lstm or mingru, or a lower --frames-per-second, which brings moments nearer",
}
_OTHER_ADVICE = "try a lower --frames-per-second, which brings moments nearer"


class Fade(Config):
    """`gradient_norm_LK`: of each layer's hidden state, in the mean over clips, from 1 step back on."""

    gradient_norm_LK: tuple[tuple[float, ...], ...]

    @property
    def ratio_K(self) -> tuple[float, ...]:
        """Of all layers together, as a share of the gradient 1 step back; 0 where even that is 0."""
        total_K = [math.hypot(*norm_L) for norm_L in zip(*self.gradient_norm_LK, strict=True)]
        return tuple(total / total_K[0] if total_K[0] else 0.0 for total in total_K)

    @property
    def reach_steps(self) -> int:
        """As far back as the gradient stays at `FADED` or above."""
        return next((back for back, ratio in enumerate(self.ratio_K) if not ratio >= FADED), len(self.ratio_K))


class GradientHealth(Config):
    """What was measured of one model, and what follows from it in words.

    `clip_steps` is the median length of the clips it learnt from, in sampled frames; `frames_per_second` is None where
    every frame is looked at. `before` is the same model untrained. `singular_value_L` is the largest of each layer's
    recurrent weights, with gates of the largest gate; empty for a cell without such weights.
    """

    cell: str
    readout: Readout
    frames_per_second: float | None
    num_clips: int
    clip_steps: int
    after: Fade
    before: Fade | None = None
    singular_value_L: tuple[float, ...] = ()
    clipped_share: float | None = None

    def span(self, num_steps: int) -> str:
        """So many steps in words: in seconds, where the sampling rate is known."""
        if self.frames_per_second is None:
            return f"{num_steps} frames"
        return f"{num_steps / self.frames_per_second:.2g} s"

    @property
    def warnings(self) -> tuple[str, ...]:
        """Sentences for the person; none where the gradient reaches as far back as the clips do."""
        return tuple(sentence for check in (_faded, _grown, _clipped) if (sentence := check(self)) is not None)


def why_not_measured(model: SequenceModel) -> str | None:
    """A sentence where there is no recurrent path to measure, else None."""
    if model.config.recurrent.bidirectional:
        return "a bidirectional model reads a clip from both ends at once: its gradient is not measured step by step"
    if not _hidden_L(model.recurrent.initial_state(1)):
        return f"cell {model.config.recurrent.cell!r} has no recurrent path on which a gradient could fade"
    return None


def measure(
    model: SequenceModel,
    examples: Sequence[Example],
    *,
    untrained: SequenceModel | None = None,
    clipped_share: float | None = None,
) -> GradientHealth:
    """The gradient health of a trained model on the longest of the clips that it learnt from.

    Args:
        untrained: the same model before training, to be seen beside it.
        clipped_share: of the updates of its training, those that were clipped.

    Raises:
        OptionError: there is no recurrent path (`why_not_measured` tells beforehand), or no clip with a label has two
            frames.
    """
    if (reason := why_not_measured(model)) is not None:
        raise OptionError(reason)
    chosen = _longest(model, examples)
    rate = model.config.sampling.frames_per_second
    return GradientHealth(
        cell=model.config.recurrent.cell,
        readout=model.config.heads.readout,
        frames_per_second=None if rate == "native" else rate,
        num_clips=len(chosen),
        clip_steps=round(statistics.median(len(example.feature_TD) for example in examples)),
        after=fade(model, chosen),
        before=None if untrained is None else fade(untrained, chosen),
        singular_value_L=singular_values(model),
        clipped_share=clipped_share,
    )


def fade(model: SequenceModel, examples: Sequence[Example]) -> Fade:
    """Gradients of the last answer of each clip at every step back; clips are cut to the end of the shortest."""
    num_frames = min(MAX_STEPS + 1, *(len(example.feature_TD) for example in examples))
    feature_BTD = torch.stack([example.feature_TD[-num_frames:] for example in examples])
    feature_BTD, model = feature_BTD.double(), copy.deepcopy(model).double().eval()  # float32 ends at 1e-38
    state, hidden = State(), list[Tensor]()  # hidden_BH of all layers, frame by frame
    for frame in range(num_frames - 1):
        _, state = model(feature_BTD[:, frame : frame + 1], state)
        state = _with_one_way_back(state)
        hidden += _hidden_L(state)
    scores, _ = model(feature_BTD[:, -1:], state)
    gradients = torch.autograd.grad(_loss(model, scores, examples), hidden)
    norm_N = torch.stack([gradient_BH.norm(dim=1).mean() for gradient_BH in gradients])
    norm_LK = norm_N.unflatten(0, (num_frames - 1, -1)).flip(0).T
    return Fade(gradient_norm_LK=tuple(map(tuple, norm_LK.tolist())))


def singular_values(model: SequenceModel) -> tuple[float, ...]:
    """Of each layer the largest singular value of its recurrent weights, of the largest gate where there are gates."""
    return tuple(
        max(torch.linalg.matrix_norm(weight_HH.detach(), ord=2).item() for weight_HH in weights.values())
        for weights in model.recurrent.recurrent_weights()
        if weights
    )


def _hidden_L(state: State) -> list[Tensor]:
    """hidden_BH of each layer that has one, from the lowest."""
    return [tensor for name, tensor in state.part(PREFIX).items() if name.endswith(".h")]


def _longest(model: SequenceModel, examples: Sequence[Example]) -> list[Example]:
    """The longest clips whose last answer has a target."""
    telling = [example for example in examples if len(example.feature_TD) > 1 and _has_target(model, example)]
    if not telling:
        raise OptionError("no clip has two frames and a label of its last: there is no gradient to measure")
    return sorted(telling, key=lambda example: -len(example.feature_TD))[:MAX_CLIPS]


def _has_target(model: SequenceModel, example: Example) -> bool:
    action = model.action_head is not None and example.action_target_A is not None
    return action or (model.frame_head is not None and _last_frame_target(model, example) != IGNORED)


def _last_frame_target(model: SequenceModel, example: Example) -> int:
    """Of the frame that the last step names."""
    return int(delayed(example.frame_target_T, lookahead_frames=model.config.lookahead_frames)[-1])


def _with_one_way_back(state: State) -> State:
    """Gradients pass through the recurrent layers' memory alone, and stay to be read at its `h`."""
    recurrent = state.part(PREFIX)
    cut = State({name: tensor.detach() for name, tensor in state.tensors.items()})
    # A view of its own: torch may give the same tensor as output and as memory, and what it says now must not count.
    return cut.replace({name: tensor.view_as(tensor) for name, tensor in recurrent.items()}, prefix=PREFIX)


def _loss(model: SequenceModel, scores: Scores, examples: Sequence[Example]) -> Tensor:
    """Of one answer of each clip, summed over clips, so that each clip's gradient is its own."""
    loss = torch.zeros(())
    if scores.action_logits_BTA is not None:
        for logits_A, example in zip(scores.action_logits_BTA[:, -1], examples, strict=True):
            if (target_A := example.action_target_A) is not None:
                target_A = target_A.to(logits_A)
                if model.config.heads.several:
                    loss = loss + functional.binary_cross_entropy_with_logits(logits_A, target_A, reduction="sum")
                else:
                    loss = loss + functional.cross_entropy(logits_A, target_A)
    if scores.frame_logits_BTL is not None:
        target_B = torch.tensor([_last_frame_target(model, example) for example in examples])
        frame_logits_BL = scores.frame_logits_BTL[:, -1]
        loss = loss + functional.cross_entropy(frame_logits_BL, target_B, ignore_index=IGNORED, reduction="sum")
    return loss


def _faded(health: GradientHealth) -> str | None:
    ratio_K = health.after.ratio_K
    back = min(health.clip_steps, len(ratio_K))
    ratio = ratio_K[back - 1]
    if ratio >= FADED:
        return None
    found = f"the gradient {back} steps back ({health.span(back)}) is {_power(ratio)} of that 1 step back"
    cell, clips = health.cell, f"clips of {health.span(health.clip_steps)}"
    advice = _ADVICE.get(cell, _OTHER_ADVICE)
    if health.readout == "last":
        return f"{found}: this {cell} cannot learn what your {clips} need; {advice}"
    return (
        f"{found}: this {cell} cannot learn to link what lies more than {health.span(health.after.reach_steps)} apart "
        f"in your {clips}, though readout {health.readout!r} still hears every moment by itself; {advice}"
    )


def _grown(health: GradientHealth) -> str | None:
    ratio_K = health.after.ratio_K
    largest = max(ratio_K)
    if largest <= GROWN:
        return None
    back = ratio_K.index(largest) + 1
    return (
        f"the gradient {back} steps back is {_power(largest)} times that 1 step back: it explodes, and clipping alone "
        "keeps the training together; try a lower --learning-rate, or --cell gru"
    )


def _clipped(health: GradientHealth) -> str | None:
    if health.clipped_share is None or health.clipped_share <= OFTEN:
        return None
    return (
        f"{health.clipped_share:.0%} of the updates were clipped: their size was the clipping's, not the data's; try a "
        "lower --learning-rate"
    )


def _power(value: float) -> str:
    """1e-7, not 1e-07."""
    mantissa, exponent = f"{value:.0e}".split("e")
    return f"{mantissa}e{int(exponent)}" if value else "0"

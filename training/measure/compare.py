"""Two models on the same clips: who is better, in what, and at what cost. Knows nothing of files or of training.

Shape letters: T frames, D feature size.
"""

import statistics
import time
from collections.abc import Sequence
from typing import TypeVar

import torch

from training.data.example import Example
from training.measure.answers import Answers
from training.measure.evaluate import pairs
from training.measure.figures import Change, Comparison, Cost
from vidseq.config import HeadsConfig
from vidseq.errors import OptionError
from vidseq.model import SequenceModel
from vidseq.schemas import ModelInfo

NUM_TIMED_CLIPS, NUM_PASSES = 20, 5
Named = tuple[str, HeadsConfig]  # a model's name, and what it says
Timed = tuple[SequenceModel, Sequence[Example]]
Metrics = TypeVar("Metrics")


def check_labels(first: Named, second: Named) -> None:
    """That there is something to compare: of each kind that both models say, the same labels.

    Raises:
        OptionError: a sentence that names what only one of them says.
    """
    names = f"{first[0]} and {second[0]} cannot be compared"
    ours, theirs = first[1], second[1]
    of_actions, of_frames = ours.action_labels and theirs.action_labels, ours.frame_labels and theirs.frame_labels
    if not of_actions and not of_frames:
        raise OptionError(f"{names}: one says actions, the other frame labels")
    if of_actions:
        _check_same(names, "actions", ours.action_labels, theirs.action_labels)
        if ours.several != theirs.several:
            raise OptionError(f"{names}: one says several actions of a clip, the other one")
    if of_frames:
        _check_same(names, "frame labels", ours.frame_labels, theirs.frame_labels)
        if ours.background != theirs.background:
            raise OptionError(f"{names}: their backgrounds are {ours.background!r} and {theirs.background!r}")


def _check_same(names: str, kind: str, ours: tuple[str, ...], theirs: tuple[str, ...]) -> None:
    if alone := sorted(set(ours) ^ set(theirs)):
        raise OptionError(f"{names}: only one of them knows the {kind} {', '.join(alone)}")
    if ours != theirs:
        raise OptionError(f"{names}: they know the same {kind}, in another order")


def compare(
    answers: tuple[Answers, Answers],
    *,
    models: tuple[ModelInfo, ModelInfo],
    costs: tuple[Cost, Cost],
    failed: tuple[str, ...] = (),
) -> Comparison:
    """Figures of both, the second minus the first, and the clips on which only one is right."""
    first, second = answers
    assert [c.path for c in first.truth.clips] == [c.path for c in second.truth.clips], "the same clips, in order"
    clips, frames = first.acting and second.acting, first.framed and second.framed
    return Comparison(
        models=models,
        num_groups=len(set(first.truth.groups)),
        clips=_both(first.clips(), second.clips()) if clips else None,
        frames=_both(first.frames(), second.frames()) if frames else None,
        segments=_both(first.segments(), second.segments()) if frames else None,
        paired=pairs(second, first, against=models[0].name),
        right_to_wrong=_changes(first, second, right_now=False) if clips else (),
        wrong_to_right=_changes(first, second, right_now=True) if clips else (),
        costs=costs,
        failed=failed,
    )


def measure_costs(first: Timed, second: Timed) -> tuple[Cost, Cost]:
    """Of both on some of their clips, pass by pass in turn, so that what else the machine does slows both."""
    passes = [(_cpu_ms_a_frame(*first), _cpu_ms_a_frame(*second)) for _ in range(NUM_PASSES)]
    medians = map(statistics.median, zip(*passes, strict=True))
    one, other = (_cost(model, cpu_ms) for (model, _), cpu_ms in zip((first, second), medians, strict=True))
    return one, other


@torch.inference_mode()
def _cpu_ms_a_frame(model: SequenceModel, examples: Sequence[Example]) -> float:
    timed = examples[:NUM_TIMED_CLIPS]
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        start_seconds = time.process_time()
        for example in timed:
            model(example.feature_TD[None])
        elapsed_seconds = time.process_time() - start_seconds
    finally:
        torch.set_num_threads(num_threads)
    return 1000 * elapsed_seconds / sum(len(example.feature_TD) for example in timed)


def _cost(model: SequenceModel, cpu_ms_a_frame: float) -> Cost:
    state_bytes = None
    if not model.config.recurrent.bidirectional:
        state_bytes = sum(tensor.nbytes for tensor in model.initial_state(1).tensors.values())
    num_parameters = sum(parameter.numel() for parameter in model.parameters())
    return Cost(num_parameters=num_parameters, state_bytes=state_bytes, cpu_ms_a_frame=cpu_ms_a_frame)


def _changes(first: Answers, second: Answers, *, right_now: bool) -> tuple[Change, ...]:
    """The clips whose action the second calls right (or wrong) and the first does not."""
    return tuple(
        Change(path=before.path, truth=before.truth, first=before.called, second=after.called)
        for before, after in zip(first.rows(), second.rows(), strict=True)
        if before.truth is not None and before.called is not None and after.called is not None
        if before.right != after.right and after.right == right_now
    )


def _both(first: Metrics | None, second: Metrics | None) -> tuple[Metrics, Metrics] | None:
    return None if first is None or second is None else (first, second)

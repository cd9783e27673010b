"""`vidseq evaluate` and `vidseq compare`, start to end: models and labelled clips in, their figures out.

load_checkpoint -> read_clips, with the model's own labels -> features (cached) -> scores -> evaluate, or compare
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from training.data.clips import LabelledClip, read_clips
from training.data.dataset import Dataset
from training.data.example import Example
from training.data.features import FeatureExtractor
from training.loading import OnBad, load_features
from training.measure.answers import Answers, Truth
from training.measure.compare import check_labels, compare, measure_costs
from training.measure.evaluate import evaluate
from training.measure.figures import Comparison, Evaluation
from training.measure.honesty import honesty, rearranged
from training.measure.scores import score_clips
from training.show import Show
from vidseq.checkpoint import Checkpoint, load_checkpoint
from vidseq.config import HeadsConfig
from vidseq.errors import DatasetError
from vidseq.model import SequenceModel


@dataclass(frozen=True, eq=False)
class _Ready:
    """A model with clips whose features are there."""

    checkpoint: Checkpoint
    dataset: Dataset
    examples: list[Example]


def evaluate_model(
    model: Path,
    clips: Path,
    *,
    group_by: str | None,
    on_bad: OnBad,
    device: str,
    show: Show,
    trusted_keys: Sequence[Path] | None = None,
) -> Evaluation:
    """A model's figures, and its baselines', on a folder of labelled clips.

    Args:
        group_by: a column of clips.csv: intervals draw all clips that share its value together.
        device: where the encoder runs.
        trusted_keys: files of public keys, one of which must have signed the model; None asks for no signature.

    Raises:
        DatasetError: mistakes in the folder, or labels that the model does not know.
        CheckpointError: not a model.
    """
    checkpoint = load_checkpoint(model, trusted_keys=trusted_keys)
    ready = _prepared(checkpoint, clips, group_by=group_by, on_bad=on_bad, device=device, show=show)
    dataset, examples = ready.dataset, ready.examples
    assert checkpoint.baseline is not None, "every trained model has its baseline beside it"
    alone = checkpoint.frame_alone
    found = evaluate(
        dataset,
        examples,
        score_clips(checkpoint.model.sequence, examples),
        score_clips(checkpoint.baseline, examples),
        config=checkpoint.config,
        frame_alone=None if alone is None else score_clips(alone, dataset.alone().examples(range(len(examples)))),
        honesty=honesty(dataset, rearranged(checkpoint.model.sequence, dataset, range(len(examples)))),
    )
    return found.model_copy(update={"model": checkpoint.info})


def compare_models(
    first: Path,
    second: Path,
    clips: Path,
    *,
    group_by: str | None,
    on_bad: OnBad,
    device: str,
    show: Show,
    trusted_keys: Sequence[Path] | None = None,
) -> Comparison:
    """Two models on the same clips, each with its own encoder and sampling; see `evaluate_model`.

    Raises:
        OptionError: they say different labels, so that nothing can be compared.
        DatasetError, CheckpointError: as `evaluate_model`.
    """
    checkpoints = tuple(load_checkpoint(model, trusted_keys=trusted_keys) for model in (first, second))
    check_labels(*((checkpoint.info.name, checkpoint.config.heads) for checkpoint in checkpoints))
    ready = [
        _prepared(checkpoint, clips, group_by=group_by, on_bad=on_bad, device=device, show=show)
        for checkpoint in checkpoints
    ]
    paths = [{clip.path for clip in one.dataset.clips} for one in ready]
    first_ready, second_ready = (_only(one, paths[0] & paths[1]) for one in ready)
    return compare(
        (_answers(first_ready), _answers(second_ready)),
        models=(checkpoints[0].info, checkpoints[1].info),
        costs=measure_costs(_timed(first_ready), _timed(second_ready)),
        failed=tuple(sorted({f"{failure.path}: {failure.error}" for one in ready for failure in one.dataset.failed})),
    )


def _only(ready: _Ready, paths: Collection[Path]) -> _Ready:
    """Those of these paths: a clip that one of the models cannot sample is left out of both."""
    kept = [index for index, clip in enumerate(ready.dataset.clips) if clip.path in paths]
    return replace(ready, dataset=ready.dataset.subset(kept), examples=[ready.examples[index] for index in kept])


def _timed(ready: _Ready) -> tuple[SequenceModel, list[Example]]:
    return ready.checkpoint.model.sequence, ready.examples


def _answers(ready: _Ready) -> Answers:
    scores = score_clips(ready.checkpoint.model.sequence, ready.examples)
    return Answers(Truth.of(ready.dataset, ready.examples), scores, ready.checkpoint.config)


def _prepared(
    checkpoint: Checkpoint, clips: Path, *, group_by: str | None, on_bad: OnBad, device: str, show: Show
) -> _Ready:
    heads = checkpoint.config.heads
    folder = read_clips(  # labels of a kind that the model does not say are no mistake: they are not measured
        clips,
        group_by=group_by,
        several=heads.several,
        known_action_labels=heads.action_labels or None,
        known_frame_labels=heads.frame_labels or None,
    )
    if not any(_is_asked(clip, heads) for clip in folder.clips):
        raise DatasetError([f"{clips}: no clip has a label of the kind that {checkpoint.info.name} says"])
    # The model's own lists: a class that does not occur here is still one that it may call.
    folder = replace(
        folder,
        action_labels=heads.action_labels,
        frame_labels=heads.frame_labels,
        background=heads.background,
    )
    extractor = FeatureExtractor(checkpoint.model.encoder.to(device), config=checkpoint.config)
    dataset = load_features(folder, extractor, on_bad=on_bad, show=show)
    return _Ready(checkpoint, dataset, dataset.examples(range(len(dataset.clips))))


def _is_asked(clip: LabelledClip, heads: HeadsConfig) -> bool:
    return bool((heads.action_labels and clip.actions is not None) or (heads.frame_labels and clip.segments))

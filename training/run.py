"""`vidseq train`, start to end: a folder of labelled clips in, a model with its figures and documents out.

read_clips -> features (cached) -> Trainer: fit the model and its baselines, measure, tune -> documents -> checkpoint
"""

from pathlib import Path

import torch

from training.data.clips import CLIPS_CSV, ClipFolder, read_clips, too_small_warnings
from training.data.dataset import outside_warning
from training.data.features import FeatureExtractor
from training.data.frame_augment import FrameAugment
from training.data.splits import make_nested_folds, validation_split
from training.estimate import estimate
from training.finetune import finetune
from training.loading import OnBad, load_features
from training.loop.unfreeze import unfrozen_blocks
from training.measure.figures import Evaluation
from training.options import Options, configure
from training.report.card import write_card
from training.report.findings import gather
from training.report.page import write_report
from training.settings import FitConfig
from training.show import Show
from training.trainer import Trainer
from vidseq.checkpoint import check_destination, save_checkpoint
from vidseq.config import ModelConfig
from vidseq.encoder import Encoder, load_default_weights
from vidseq.engine import direct
from vidseq.errors import OptionError
from vidseq.model import VideoModel, check_state_size
from vidseq.rehearsal import answer


def train(
    clips: Path,
    out: Path,
    *,
    options: Options,
    group_by: str | None,
    background: str | None,
    num_folds: int | None,
    on_bad: OnBad,
    device: str,
    report_thumbnails: bool,
    features: Path | None = None,
    num_workers: int = 1,
    show: Show,
) -> Evaluation:
    """Train a model on a folder of labelled clips and write it to `out`, with its baselines beside it.

    With `num_folds` every clip is first scored by a model that has not seen its group, then all clips train the final
    model for as many epochs as the folds needed. Without, a validation split stops the run, and measures it unless
    some clips are marked `test`. Either way the scores of clips not learnt from calibrate the action, for early exit.
    `device` computes the features; the sequence model is small and stays on the CPU. A CNN that is unfrozen is trained
    first, by `num_workers`, on all but the validation split; features and baselines are then those of the trained one.
    Features are kept in the store `features`, by default one in the user's cache folder. The report in the folder holds
    small pictures of clips only if that is asked for.

    Raises:
        DatasetError, OptionError, CheckpointError: with a sentence for the person.
    """
    check_destination(out)
    _refuse_among_classes(out, clips)
    folder = read_clips(clips, group_by=group_by, background=background, several=options.several)
    _check_split(folder, num_folds=num_folds, seed=options.seed)
    _warn(folder, num_folds=num_folds, show=show)
    config, settings = configure(
        options,
        action_labels=folder.action_labels,
        frame_labels=folder.frame_labels,
        background=folder.background,
    )
    torch.manual_seed(options.seed)  # a backbone with `--weights none` is drawn at random
    encoder = Encoder(config.encoder)
    check_state_size(config, encoder.motion)
    _check_cnn(encoder, settings, num_folds=num_folds, num_workers=num_workers)
    load_default_weights(encoder)
    augment = FrameAugment(settings.augment_frames)
    extractor = FeatureExtractor(encoder.to(device), config=config, augment=augment, store=features)
    _say_how_long(folder, extractor, config=config, settings=settings, num_folds=num_folds, show=show)
    dataset = load_features(folder, extractor, num_views=settings.num_views, on_bad=on_bad, show=show)
    if (warning := outside_warning(dataset)) is not None:
        show.warn(warning)
    run, learnt = out.with_name(f"{out.name}.run"), None
    if settings.unfreeze is not None:
        both = finetune(encoder, dataset, config=config, settings=settings, num_workers=num_workers, run=run, show=show)
        encoder, learnt = both.encoder, both.model
        dataset = load_features(
            folder, FeatureExtractor(encoder, config=config, store=features), on_bad=on_bad, show=show
        )
    trainer = Trainer(
        dataset,
        config=config,
        settings=settings,
        unknown_precision=options.unknown_precision,
        run=run,
        show=show,
        trained=learnt,
    )
    trained = trainer.with_validation() if num_folds is None else trainer.with_folds(num_folds)
    show.evaluation(trained.evaluation, title=trained.measured_on)
    findings = gather(
        out.name,
        trained,
        dataset=dataset,
        settings=settings,
        problems=show.warned,
        with_thumbnails=report_thumbnails,
    )
    model = VideoModel(encoder.cpu(), trained.model.model).eval()
    save_checkpoint(
        out,
        config=trained.config,
        model=model,
        baseline=trained.baseline.model,
        frame_alone=trained.frame_alone.model,
        answer=answer(trained.config, direct(model), device="cpu"),
        documents={"card.md": write_card(findings), "report.html": write_report(findings)},
        version="1",
    )
    trainer.forget_progress()
    return trained.evaluation


def _refuse_among_classes(out: Path, clips: Path) -> None:
    """Where folders are the classes, the model and its progress would count as some, at the latest the next time.

    Raises:
        OptionError: so it would be here.
    """
    if out.resolve().is_relative_to(clips.resolve()) and not (clips / CLIPS_CSV).exists():
        raise OptionError(f"{out} lies in {clips}, whose folders are classes: choose a place outside for the model")


def _warn(folder: ClipFolder, *, num_folds: int | None, show: Show) -> None:
    """What is allowed, and yet may not be what was meant."""
    for warning in (*folder.warnings, *too_small_warnings(folder.clips, num_folds=num_folds or 2)):
        show.warn(warning)
    if num_folds is not None and any(clip.split is not None for clip in folder.clips):
        show.warn("--folds ignores the given split: every clip is tested once")


def _say_how_long(
    folder: ClipFolder,
    extractor: FeatureExtractor,
    *,
    config: ModelConfig,
    settings: FitConfig,
    num_folds: int | None,
    show: Show,
) -> None:
    about = estimate(
        [clip.path for clip in folder.clips],
        extractor,
        configs=[config, config.baseline(), config.frame_alone()],
        settings=settings,
        num_folds=num_folds,
    )
    if about is not None:
        show.say(f"{about}; how long the CNN takes to train is told by its bar" if settings.unfreeze else str(about))


def _check_cnn(encoder: Encoder, settings: FitConfig, *, num_folds: int | None, num_workers: int) -> None:
    if settings.unfreeze is None:
        if num_workers > 1:
            raise OptionError(f"{num_workers} workers share the training of the CNN, and it is frozen: give unfreeze")
        return
    unfrozen_blocks(encoder, settings.unfreeze)
    if num_folds is not None:
        raise OptionError(
            f"each of {num_folds} folds would need a CNN of its own: give unfreeze without folds, and mark clips test"
        )


def _check_split(folder: ClipFolder, *, num_folds: int | None, seed: int) -> None:
    """What cannot be split is told before the features are computed, not after."""
    if num_folds is None:
        validation_split(folder.clips, seed=seed)
    else:
        make_nested_folds(folder.clips, num_folds=num_folds, seed=seed)

"""How a sequence model is trained: every number of the loop, with its range. Knows nothing of torch."""

from typing import Annotated, Literal

from pydantic import Field

from vidseq.config import Config, ModelConfig, PositiveInt, Share
from vidseq.errors import OptionError

TimeChange = Literal["crop", "drop", "speed", "reverse"]
FrameChange = Literal["wide", "crop", "colour", "grey", "flip"]
ClassBalance = Literal["none", "weights", "sampling", "logits"]
Long = Literal["whole", "truncated", "window"]
Smoothing = Annotated[float, Field(ge=0, lt=1)]
Mixup = Annotated[float, Field(ge=0, le=10)]
Decay = Annotated[float, Field(ge=0, lt=1)]
ChunkFrames = Annotated[int, Field(ge=1, le=2**20)]
Views = Annotated[int, Field(ge=1, le=64)]
LayerDecay = Annotated[float, Field(gt=0, le=1)]


class UnfreezeConfig(Config):
    """How the CNN is trained: its last `blocks` blocks, or all of it.

    The last block learns at `learning_rate`, each block before it at `layer_decay` of the one after
    (arxiv:1801.06146). `checkpoint_gradients` computes blocks anew in the backward pass instead of keeping what they
    computed (arxiv:1604.06174). `clip_frames` is how much of a clip one step looks at, from a random frame on.
    """

    blocks: PositiveInt | Literal["all"]
    learning_rate: Annotated[float, Field(gt=0)] = 1e-4
    layer_decay: LayerDecay = 0.8
    checkpoint_gradients: bool = False
    clip_frames: PositiveInt = 32


class FitConfig(Config):
    """Learning rate rises over `warmup_share` of the steps, then falls as a cosine.

    `class_balance`, for labels of which there are few, found on the clips that are learnt from:
        weights   the loss of a label counts as much more as it is rarer
        sampling  clips are drawn so that each action comes as often as the others
        logits    logits are shifted by the logarithm of each label's share, in the loss alone (arxiv:2007.07314)

    `mixup` lays two clips over each other, frame by frame, in shares drawn from Beta(mixup, mixup) (arxiv:1710.09412).
    `average_decay` keeps a running mean of the weights, and that is the model: 0.99 looks back some 100 steps.
    `augment_time` shows a clip in another way each time: see training.data.augment. `augment_frames` changes its frames
    (training.data.frame_augment): of a frozen CNN's features it makes `num_views` sets, the first without changes; a
    CNN that is trained, as `unfreeze` says, sees them changed anew each time.

    With `stop_early` some clips are held out, and training stops once `patience_epochs` have not made them any better;
    else all clips are learnt from, for all epochs.

    `long`, for sequences of any length:
        whole      each clip in one piece; memory grows with the longest clip of a batch
        truncated  `chunk_frames` at a time, a step after each; the state is carried on, the gradient is cut
        window     stretches of `chunk_frames` that begin without a state, and the loss of their last frame alone;
                   afterwards the state is carried through whole videos (MiniROAD, An et al., ICCV 2023)
    """

    epochs: PositiveInt = 60
    batch_size: PositiveInt = 16
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    weight_decay: Annotated[float, Field(ge=0)] = 0.05
    warmup_share: Share = 0.1
    max_gradient_norm: Annotated[float, Field(gt=0)] = 1.0
    label_smoothing: Smoothing = 0.1
    class_balance: ClassBalance = "none"
    mixup: Mixup = 0.0
    augment_time: tuple[TimeChange, ...] = ()
    augment_frames: tuple[FrameChange, ...] = ()
    num_views: Views = 1
    unfreeze: UnfreezeConfig | None = None
    average_decay: Decay = 0.0
    long: Long = "whole"
    chunk_frames: ChunkFrames = 128
    frame_loss_weight: Annotated[float, Field(ge=0)] = 1.0
    patience_epochs: PositiveInt = 20
    stop_early: bool = True
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0


def check_together(config: ModelConfig, settings: FitConfig) -> None:
    """To be asked before the work begins.

    Raises:
        OptionError: a model of this kind cannot be trained so.
    """
    heads = config.heads
    if config.recurrent.bidirectional and settings.long != "whole":
        raise OptionError(
            f"long {settings.long!r} carries the state from chunk to chunk, and a bidirectional model has none to carry"
        )
    if settings.class_balance == "sampling" and (heads.several or not heads.action_labels):
        said = "says several actions" if heads.several else "says none"
        raise OptionError(
            f"class_balance 'sampling' draws clips by their one action, and this model {said}: choose 'weights' or "
            "'logits'"
        )
    if "wide" in settings.augment_frames and config.picture.fit == "letterbox":
        raise OptionError(
            "augment_frames 'wide' shows all of the frame in one view, fit 'letterbox' in all of them: choose one"
        )
    _check_frames(settings)


def _check_frames(settings: FitConfig) -> None:
    """What changes frames, and what trains on them."""
    if settings.unfreeze is None:
        if (settings.num_views > 1) != bool(settings.augment_frames):
            raise OptionError(
                "augment_frames says how the frames of a view are changed, and views how many views there are: "
                "without unfreeze give both, or neither"
            )
        if settings.augment_frames == ("wide",) and settings.num_views > 2:
            raise OptionError("augment_frames 'wide' makes one view of its own: name another change, or give 2 views")
        return
    if settings.num_views > 1:
        raise OptionError("views are of a CNN that is frozen: one that is trained sees frames changed anew each time")
    if "wide" in settings.augment_frames:
        raise OptionError("augment_frames 'wide' is for views: unfreeze changes the pixels that were cut once")
    if settings.long != "whole":
        raise OptionError(
            f"unfreeze learns from stretches of clip_frames ({settings.unfreeze.clip_frames}) of a clip: it needs long "
            f"'whole', not {settings.long!r}"
        )
    if settings.mixup:
        raise OptionError(f"mixup ({settings.mixup:g}) lays features over each other, and unfreeze learns from pixels")

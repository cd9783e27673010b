"""Which models may share one look at a video: one decoder, one pass of the backbone, then the heads of each.

Knows nothing of who asks for them.
"""

from collections.abc import Iterable, Sequence

from vidseq.checkpoint import Checkpoint
from vidseq.errors import OptionError
from vidseq.features.extract import Look, differing
from vidseq.schemas import ALL_MODELS, ModelInfo


def refuse_other_looks(checkpoints: Sequence[Checkpoint]) -> None:
    """
    Raises:
        OptionError: one of them is there twice, or sees videos in another way than the first.
    """
    first, *others = checkpoints
    for other in others:
        refuse_other_look(first, other)
    hashes = [checkpoint.info.sha256 for checkpoint in checkpoints]
    if len(set(hashes)) < len(hashes):
        raise OptionError("a model is there twice: once is enough")


def refuse_other_look(first: Checkpoint, other: Checkpoint) -> None:
    """
    Raises:
        OptionError: the other one sees videos in another way.
    """
    if (pair := differing(Look.of(first.config), Look.of(other.config))) is not None:
        name, its, theirs = pair
        raise OptionError(
            f"{other.info.name} cannot share a look with {first.info.name}: {name} is {theirs}, not {its}"
        )
    if first.model.encoder is other.model.encoder:
        return
    if first.model.encoder.to_bytes() != other.model.encoder.to_bytes():
        raise OptionError(
            f"{other.info.name} cannot share a look with {first.info.name}: their backbones have other weights"
        )


def refuse_same_names(infos: Iterable[ModelInfo]) -> None:
    """
    Raises:
        OptionError: two of them would answer to one name, or one to that which means all.
    """
    names = [info.name for info in infos]
    for name in names:
        if names.count(name) > 1:
            raise OptionError(f"two models are named {name!r}: whoever asks for one of them could mean either")
        if name == ALL_MODELS and len(names) > 1:
            raise OptionError(f"a model is named {name!r}, which stands for all that are loaded: give it another name")

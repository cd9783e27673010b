"""Which part of the CNN is trained, how fast, and at what cost in memory. Knows nothing of the training loop.

    conv1 | block | block | block | block | block | block      blocks, in the order of the pixels' way
    ------------- frozen -------- | ---- unfreeze 3 -----
                                     r d^2   r d    r          learning rates: r at the end, less with depth

A frozen part runs once and records nothing. Batch statistics stay what they were, trained or not (`Encoder.train`).
"""

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import (
    apply_activation_checkpointing,
    checkpoint_wrapper,
)

from training.settings import UnfreezeConfig
from vidseq.config import PACKAGED
from vidseq.encoder import Encoder
from vidseq.errors import OptionError

# A network of which one block holds more than this has no blocks worth the name.
_MAX_BLOCK_SHARE = 0.9


Block = tuple[nn.Module, ...]


def unfreeze(encoder: Encoder, settings: UnfreezeConfig) -> None:
    """Let gradients reach the parameters that `settings` names, and no others.

    Raises:
        OptionError: as `unfrozen_blocks`.
    """
    blocks = unfrozen_blocks(encoder, settings)
    encoder.requires_grad_(False)
    for module in [encoder.backbone] if settings.blocks == "all" else chain.from_iterable(blocks):
        module.requires_grad_(True)
    if settings.checkpoint_gradients:
        _check_rerunning(encoder)
        # for a single layer nothing would be saved: its input is kept either way
        chosen = {module for module in chain.from_iterable(blocks) if next(module.children(), None) is not None}
        apply_activation_checkpointing(encoder.backbone, checkpoint_wrapper, check_fn=lambda module: module in chosen)


def parameter_groups(encoder: Encoder, settings: UnfreezeConfig) -> list[dict[str, Any]]:
    """The trained parameters as an optimizer takes them, each group with its learning rate, the last block first.

    What lies outside the blocks (a transformer's class token) learns like a block before the first.
    """
    groups, seen = [], set[nn.Parameter]()
    for depth, block in enumerate([*reversed(split_into_blocks(encoder)), (encoder.backbone,)]):
        found = [parameter for module in block for parameter in module.parameters()]
        trained = [parameter for parameter in found if parameter.requires_grad and parameter not in seen]
        if trained:
            groups.append({"params": trained, "lr": settings.learning_rate * settings.layer_decay**depth})
        seen.update(trained)
    return groups


def unfrozen_blocks(encoder: Encoder, settings: UnfreezeConfig) -> list[Block]:
    """The blocks that would be trained. To be asked before the work begins, too.

    Raises:
        OptionError: the backbone has fewer blocks, or none.
    """
    blocks = split_into_blocks(encoder)
    if settings.blocks == "all":
        return blocks
    _check(blocks, settings.blocks, encoder.config.backbone)
    return blocks[-settings.blocks :]


def split_into_blocks(encoder: Encoder) -> list[Block]:
    """The backbone's blocks from the pixels to the feature: the parts that its plain sequences hold, opened.

    A layer without weights belongs to none of them, a normalisation to the block before it.
    """
    blocks: list[Block] = []
    for module in _opened(encoder.backbone):
        if blocks and all(parameter.ndim < 2 for parameter in module.parameters()):
            blocks[-1] += (module,)
        else:
            blocks.append((module,))
    return blocks


def _opened(module: nn.Module) -> Iterator[nn.Module]:
    """The parts with weights, in the order in which they were made, which is that of the pixels' way."""
    for name, child in module.named_children():
        if name.startswith(("aux", "Aux")):  # Inception's classifiers on the way: not run when there are no labels
            continue
        if type(child) is nn.Sequential:
            yield from _opened(child)
        elif next(child.parameters(), None) is not None:
            yield child


def _check_rerunning(encoder: Encoder) -> None:
    motion, backbone = encoder.config.motion, encoder.config.backbone
    if motion is not None and motion.maps and backbone != PACKAGED and not backbone.startswith("timm:"):
        raise OptionError(
            f"checkpoint_gradients runs blocks again, and the maps of {backbone!r} are read inside of them: leave out "
            "checkpoint_gradients or motion, or take a backbone of timm"
        )


def _check(blocks: Sequence[Block], num_unfrozen: int, backbone: str) -> None:
    counts = [sum(parameter.numel() for module in block for parameter in module.parameters()) for block in blocks]
    if max(counts) > _MAX_BLOCK_SHARE * sum(counts):
        raise OptionError(
            f"backbone {backbone!r} has no blocks that could be unfrozen one by one: unfreeze all of it, or none"
        )
    if num_unfrozen > len(blocks):
        raise OptionError(f"backbone {backbone!r} has {len(blocks)} blocks; {num_unfrozen} cannot be unfrozen")

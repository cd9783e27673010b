"""Every kind of layer behind one interface (`Layer`), and the one table of them. Knows nothing of states or features.

kernels     elman  lstm  gru              torch's kernels for sequences, a loop of our own for steps
gated       cho  mut1  mut2  mut3         loops of our own
mingru      mingru                        a parallel scan for sequences, a loop for steps
window      conv  attention               a bounded view of the past
"""

from collections.abc import Callable

from vidseq.cells.both_ways import BothWays
from vidseq.cells.gated import Cho, Mut1, Mut2, Mut3
from vidseq.cells.kernels import Elman, Gru, Lstm
from vidseq.cells.layer import Layer, Memory, Recurrence
from vidseq.cells.links import Link
from vidseq.cells.mingru import MinGru
from vidseq.cells.window import Attention, Conv
from vidseq.config import RecurrentConfig

__all__ = ["Layer", "Link", "Memory", "build_layer"]

_RECURRENCES: dict[str, Callable[..., Recurrence]] = {
    "elman": Elman,
    "lstm": Lstm,
    "gru": Gru,
    "cho": Cho,
    "mut1": Mut1,
    "mut2": Mut2,
    "mut3": Mut3,
    "mingru": MinGru,
}


def build_layer(config: RecurrentConfig, *, number: int, input_size: int) -> Layer:
    """Layer `number` of a stack, counted from 0: a convolution reaches twice as far back as the one below it."""
    if config.cell == "conv":
        return Conv(input_size, config.hidden_size, dilation=2**number)
    if config.cell == "attention":
        return Attention(input_size, config.hidden_size, window_frames=config.window_frames)
    kind = _RECURRENCES[config.cell]
    directions = [
        kind(input_size, config.hidden_size, learned_start=config.learned_start)
        for _ in range(2 if config.bidirectional else 1)
    ]
    return BothWays(*directions) if config.bidirectional else directions[0]

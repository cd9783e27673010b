"""The workers that train one model together, each on its share of every batch. Knows nothing of Ray or of models.

    batch  a b c d e      worker 0: a c e      worker 1: b d

The loss of a batch is a sum over its labels divided by their number: the number is that of all workers, so that a step
is the one that a single worker would take with the whole batch, however the labels are spread.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch.distributed
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

T = TypeVar("T")


@dataclass(frozen=True)
class Crew:
    """A worker and how many they are; alone by default. With others, torch.distributed has been set up."""

    rank: int = 0
    num_workers: int = 1

    @classmethod
    def here(cls) -> "Crew":
        """That of this process."""
        return cls(torch.distributed.get_rank(), torch.distributed.get_world_size())

    @property
    def leads(self) -> bool:
        """Whether this worker is the one that saves and reports."""
        return self.rank == 0

    def share(self, batch: Sequence[T]) -> Sequence[T]:
        """What this worker learns from; nothing, if there are more workers than clips."""
        return batch[self.rank :: self.num_workers]

    def together(self, model: nn.Module) -> nn.Module:
        """The model, called as before, whose gradients are the mean of all workers'. It begins as the leader's."""
        return model if self.num_workers == 1 else DistributedDataParallel(model)

    def total(self, tensor: Tensor) -> Tensor:
        """The sum over all workers, on each of them."""
        if self.num_workers == 1:
            return tensor
        total = tensor.detach().clone()
        torch.distributed.all_reduce(total)
        return total

    def agree(self, value: bytes) -> bool:
        """Whether all workers have the same."""
        digests: list[str | None] = [None] * self.num_workers
        torch.distributed.all_gather_object(digests, hashlib.sha256(value).hexdigest())
        return len(set(digests)) == 1


ALONE = Crew()

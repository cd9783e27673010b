"""A fit as a person sees it: a bar, a word when it goes on after a kill, curves in TensorBoard. Knows no models."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from torch.utils.tensorboard.writer import SummaryWriter

from training.loop.progress import Epoch
from training.show import Advance, Show


@dataclass(frozen=True)
class Watch:
    """Who is told of a fit: of each epoch, and once of how many were found done."""

    on_epoch: Callable[[Epoch], None]
    on_resume: Callable[[int], None]


@contextmanager
def watched(name: str, *, num_epochs: int, run: Path, show: Show) -> Iterator[Watch]:
    """A bar of at most `num_epochs`, and TensorBoard's curves in the folder `run / name`."""
    with SummaryWriter(str(run / name)) as board, show.progress(f"training {name}", total=num_epochs) as advance:
        word = in_a_word(advance)

        def on_epoch(epoch: Epoch) -> None:
            _draw(board, epoch)
            word(epoch)

        def on_resume(num_done: int) -> None:
            show.say(f"{name}: continuing after epoch {num_done}")
            advance("", num_done)

        yield Watch(on_epoch, on_resume)


def in_a_word(advance: Advance) -> Callable[[Epoch], None]:
    """One step of a bar for each epoch."""
    return lambda epoch: advance(f"loss {epoch.train_loss:.3f}, best epoch {epoch.best_epoch}")


def _draw(board: SummaryWriter, epoch: Epoch) -> None:
    figures = {
        "loss/train": epoch.train_loss,
        "loss/validation": epoch.validation_loss,
        "gradient/norm": epoch.gradient_norm,
        "gradient/clipped share": epoch.clipped_share,
        "learning rate": epoch.learning_rate,
    }
    for name, figure in figures.items():
        if figure is not None:
            board.add_scalar(name, figure, epoch.number)

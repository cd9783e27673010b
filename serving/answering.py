"""With which models a replica answers: others are tried beside them and take their place. Knows no HTTP and no Ray.

prepare   loaded, held to its golden answer, and not asked yet     why it is refused, or None
take      between two requests; what was begun with one model ends with it
drop      never mind
follow    a rollout that passed this replica by while it started
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from serving.current import Lineup, num_switched
from vidseq.errors import CheckpointError, InputError

if TYPE_CHECKING:  # with it come torch and OpenCV
    from serving.labeller import Head, Labeller

logger = logging.getLogger("ray.serve")  # where a replica's log goes


class Load(Protocol):
    """A labeller of these models that has answered the canary clip. Raises CheckpointError, OptionError or whatever."""

    def __call__(self, model: Path, also: Sequence[Path]) -> "Labeller": ...


class Answering:
    """The labeller of a replica, and what may take its place: a whole one, or a model beside those that it has.

    Args:
        load: makes a labeller.
        model: the folder of the first model, or a link of serving.current to it, which is read again by `follow`.
        also: the folders of others, or folders of those.
        told: of each model that was offered while it ran, what became of it.

    Raises:
        CheckpointError, OptionError: as `load`.
    """

    def __init__(
        self, load: Load, model: Path, also: Sequence[Path], *, told: Callable[[Literal["taken", "refused"]], None]
    ) -> None:
        self._load = load
        self._told = told
        self._places = model, also
        self._loading = asyncio.Lock()  # one at a time
        self._num_switched = num_switched(model)  # read first: what is switched meanwhile is found by `follow`
        lineup = self._lineup()
        self.labeller = load(lineup.model, lineup.also)
        self._prepared: Labeller | None = None
        self._prepared_head: Head | None = None

    async def prepare(self, model: Path, also: Sequence[Path]) -> str | None:
        """Load other models beside those that answer; why they are refused, or None."""
        async with self._loading:
            self._prepared = None
            try:
                self._prepared = await self._loaded(Lineup(model, tuple(also)))
            except Exception as error:  # whatever it is, the one that answers goes on
                return self._refused(model, error)
        return None

    async def take(self, model: Path, also: Sequence[Path]) -> None:
        """Answer with what was prepared; a replica that has come since then loads it first. Raises CheckpointError."""
        number = num_switched(self._places[0])
        if self._prepared is None and (refusal := await self.prepare(model, also)) is not None:
            raise CheckpointError(refusal)
        assert self._prepared is not None
        self.labeller, self._prepared, self._num_switched = self._prepared, None, number
        self._told("taken")

    async def prepare_head(self, folder: Path) -> str | None:
        """Load one more model that shares the backbone of those that answer; why it is refused, or None."""
        async with self._loading:
            self._prepared_head, labeller = None, self.labeller
            try:
                head = await asyncio.to_thread(labeller.load, folder)
                if odd := await asyncio.to_thread(labeller.rehearse, head):
                    logger.warning(odd)
            except Exception as error:
                return self._refused(folder, error)
            self._prepared_head = head
        return None

    async def take_head(self, folder: Path) -> None:
        """Answer with it, too; a replica that has come since then has it, or loads it first. Raises CheckpointError."""
        if self._prepared_head is None and folder in self.labeller.also:
            return
        if self._prepared_head is None and (refusal := await self.prepare_head(folder)) is not None:
            raise CheckpointError(refusal)
        assert self._prepared_head is not None
        self.labeller.add(self._prepared_head)
        self._prepared_head = None
        self._one_switch_further()
        self._told("taken")

    def remove_head(self, folder: Path) -> None:
        """Answer no more with the model from there; the first stays."""
        self.labeller.remove(folder)
        self._one_switch_further()

    async def follow(self) -> bool:
        """Answer with what the links lead to now, if they were switched while this replica was not asked: it had read
        them as it started, and could not be reached yet. Whether it was so.

        Raises:
            CheckpointError, OptionError: what the others answer with cannot be used here.
        """
        async with self._loading:
            number = num_switched(self._places[0])
            under_way = self._prepared is not None or self._prepared_head is not None
            if under_way or number == self._num_switched:
                return False
            self.labeller = await self._loaded(self._lineup())
            self._num_switched = number
        self._told("taken")
        return True

    def drop(self) -> None:
        """Forget what was prepared."""
        self._prepared = self._prepared_head = None

    def _lineup(self) -> Lineup:
        return Lineup.of(*self._places)

    async def _loaded(self, lineup: Lineup) -> "Labeller":
        labeller = await asyncio.to_thread(self._load, lineup.model, lineup.also)
        if (labeller.live is None) is not (self.labeller.live is None):
            raise CheckpointError(f"of the model in {lineup.model} and the one that answers only one can label streams")
        return labeller

    def _one_switch_further(self) -> None:
        """One step was made: whoever had missed another before it still has to `follow`."""
        if num_switched(self._places[0]) == self._num_switched + 1:
            self._num_switched += 1

    def _refused(self, folder: Path, error: Exception) -> str:
        self._told("refused")
        why = str(error) or type(error).__name__
        logger.error("the model in %s is refused: %s", folder, why, exc_info=not isinstance(error, InputError))
        return why

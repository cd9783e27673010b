"""Which models a service of this machine answers with, as links that a replica follows when it starts. Loads none.

current -> switch2/                 switched in one step
           switch2/model -> the first
           switch2/also/000 -> another, with the same backbone
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

Kind = Literal["all", "add", "remove"]

MANIFEST = "manifest.json"
_SWITCH = "switch"


@dataclass(frozen=True)
class Lineup:
    """Folders of models: the first, and others beside it, in order."""

    model: Path
    also: tuple[Path, ...] = ()

    @classmethod
    def of(cls, model: Path, also: Iterable[Path]) -> "Lineup":
        """What stands there now: links are followed, and the first is not beside itself."""
        first = model.resolve()
        return cls(first, tuple(folder for folder in models_in(also) if folder != first))


def models_in(places: Iterable[Path]) -> Sequence[Path]:
    """Each place is a model, or a folder of models (by their names); what is no model is none."""
    found = dict[Path, None]()
    for place in places:
        manifests = [place / MANIFEST] if (place / MANIFEST).is_file() else sorted(place.glob(f"*/{MANIFEST}"))
        found |= {manifest.parent.resolve(): None for manifest in manifests}
    return [*found]


@dataclass(frozen=True)
class Change:
    """One step from the models that answer to those that shall.

    `all` are loaded anew and take the place of all at once; one model is added to those beside the first, or removed.
    """

    kind: Kind
    folder: Path
    also: tuple[Path, ...] = ()  # of `all`

    def made_to(self, lineup: Lineup) -> Lineup:
        if self.kind == "all":
            return Lineup(self.folder, self.also)
        others = tuple(folder for folder in lineup.also if folder != self.folder)
        return replace(lineup, also=(*others, self.folder) if self.kind == "add" else others)


def changes(before: Lineup, after: Lineup) -> list[Change]:
    """Models that have only come, or only gone, do so beside those that answer. For all else all are loaded anew: also
    where nothing has changed but perhaps what is in the folders."""
    come = [folder for folder in after.also if folder not in before.also]
    gone = [folder for folder in before.also if folder not in after.also]
    if after.model != before.model or bool(come) is bool(gone):
        return [Change("all", after.model, after.also)]
    return [Change("add", folder) for folder in come] + [Change("remove", folder) for folder in gone]


def num_switched(model: Path) -> int:
    """How often what `Current.model` leads to was another since the first; 0 for what is no link of it."""
    before, switch, number = model.parent.resolve().name.partition(_SWITCH)
    return int(number) if switch and not before and number.isdecimal() else 0


class Current:
    """Links in a folder of their own."""

    def __init__(self, folder: Path, lineup: Lineup) -> None:
        self._folder = folder
        self._num_switched = 0
        self.lineup = lineup
        self.switch(lineup)

    @property
    def model(self) -> Path:
        return self._folder / "current/model"

    @property
    def also(self) -> Path:
        return self._folder / "current/also"

    def switch(self, lineup: Lineup) -> None:
        """Whoever follows the links from here on gets these."""
        fresh = self._folder / f"{_SWITCH}{self._num_switched}"
        (fresh / "also").mkdir(parents=True)
        (fresh / "model").symlink_to(lineup.model)
        for number, folder in enumerate(lineup.also):
            (fresh / "also" / f"{number:03}").symlink_to(folder)
        link = self._folder / "fresh"
        link.symlink_to(fresh.name)
        link.replace(self._folder / "current")
        self._num_switched += 1
        self.lineup = lineup

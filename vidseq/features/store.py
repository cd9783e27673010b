"""A folder of features, by what they follow from. Knows no video and no network.

    store.json                                 how numbers are kept here
    3f0c9a6be1d2477a/recipe.json               a backbone with its weights, the picture, the sampling: for people
    3f0c9a6be1d2477a/9b/9b2e...safetensors     a clip, under the hash of its bytes

A changed clip, backbone, picture or rate has another name, so it is never taken for what is here; a renamed clip is.
Several writers may share a folder: whoever writes a name a second time writes the same, and a name stands for a whole
file. A damaged file counts as nothing kept.

Shape letters: T sampled frames, D feature size, M size of a frame's maps.
"""

import json
import os
import re
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from vidseq.config import Config, EncoderConfig, Picture, Sampling
from vidseq.errors import OptionError
from vidseq.features.hashes import joint_hash
from vidseq.features.row_files import Rows, Seconds, read_rows, write_rows

VERSION = "2"  # of the way from bytes to rows: a new resize must not meet old features

Kind = Literal["float32", "float16"]
Chunks = Iterable[tuple[Mapping[str, Rows], Seconds]]

_FEATURES, _MAPS = "feature_TD", "map_TM"
_RECIPE_LETTERS = 16
SUFFIX = ".safetensors"
RECIPE = "recipe.json"
_STORE = "store.json"


class Layout(Config):
    """`store.json`: what holds for a whole store."""

    features: Kind = "float32"


@dataclass(frozen=True)
class Recipe:
    """All that features follow from, but for the clip."""

    encoder: EncoderConfig
    weights_sha256: str
    picture: Picture
    sampling: Sampling

    @cached_property
    def id(self) -> str:
        return joint_hash(VERSION, json.dumps(self.described()))[:_RECIPE_LETTERS]

    def described(self) -> dict[str, object]:
        """For people, and for its id: where the weights came from does not count, only what they are."""
        return {
            "encoder": self.encoder.model_dump(mode="json", exclude={"weights"}),
            "weights_sha256": self.weights_sha256,
            "picture": self.picture.model_dump(mode="json"),
            "sampling": self.sampling.model_dump(mode="json"),
        }


@dataclass(frozen=True, eq=False)
class ClipFeatures:
    """The features of one clip's sampled frames, float32 or float16, and their times.

    Where they tell of motion, `map_TM` is what they follow from, beside the pooled features: the frames' maps, reduced.
    `about` is what else is known of the clip; empty if nobody has said.
    """

    feature_TD: NDArray[np.float32] | NDArray[np.float16]
    seconds_T: NDArray[np.float64]
    map_TM: NDArray[np.float16] | None = None
    about: str = ""

    def __post_init__(self) -> None:
        assert self.feature_TD.ndim == 2 and self.seconds_T.shape == self.feature_TD.shape[:1]

    def __repr__(self) -> str:
        return f"ClipFeatures(feature_TD={self.feature_TD.shape})"


class FeatureStore:
    """A folder that is made with the first features that are written.

    Args:
        kind: how features are kept. None takes what the folder has; float32 in a new one. Half as many bytes move
            labels a little (docs/results.md).

    Raises:
        OptionError: the folder keeps them in another way, or is no store.
    """

    def __init__(self, folder: Path, *, kind: Kind | None = None) -> None:
        self.folder = folder
        if re.match(r"[a-z][a-z0-9+.-]+:/", str(folder)):
            raise OptionError(f"a store of features is a folder that is mounted here, not a URL: {str(folder)!r}")
        found = _layout(folder)
        if found is not None and kind not in (None, found.features):
            raise OptionError(f"the features in {str(folder)!r} are {found.features}, and {kind} was asked for")
        self.kind: Kind = found.features if found is not None else kind or "float32"
        self._established: set[str] = set()

    def has(self, recipe: Recipe, key: str) -> bool:
        """Whether something is kept under this name, damaged or not."""
        return self._path(recipe, key).is_file()

    def read(self, recipe: Recipe, key: str) -> ClipFeatures | None:
        """The features of a clip, if they are there and whole.

        Args:
            key: the SHA-256 of the clip's bytes, in hexadecimal; then a dash and a hash of what was done to it, if so.
        """
        names = (_FEATURES,) if recipe.encoder.motion is None else (_FEATURES, _MAPS)
        kept = read_rows(self._path(recipe, key), *names)
        if kept is None:
            return None
        return ClipFeatures(kept.columns[_FEATURES], kept.seconds_T, kept.columns.get(_MAPS), kept.about)

    def write(self, recipe: Recipe, key: str, chunks: Chunks, *, about: Callable[[], str] = lambda: "") -> None:
        """Chunks of columns `feature_TD` and, with motion, `map_TM`, as they come; `about` is asked after the last."""
        self._establish(recipe)
        kept = ((self._as_kept(columns), seconds_T) for columns, seconds_T in chunks)
        write_rows(self._path(recipe, key), kept, about=about)

    def _as_kept(self, columns: Mapping[str, Rows]) -> dict[str, Rows]:
        if self.kind == "float32":
            return dict(columns)
        most = np.finfo(np.float16).max
        halved = columns[_FEATURES].clip(-most, most).astype(np.float16)
        return {name: halved if name == _FEATURES else rows for name, rows in columns.items()}

    def _establish(self, recipe: Recipe) -> None:
        """What is said once of a store and of a recipe; the first writer says it.

        Raises:
            OptionError: the store was made by somebody else meanwhile, who keeps features in another way.
        """
        if recipe.id in self._established:
            return
        _write_first(self.folder / _STORE, Layout(features=self.kind).model_dump_json())
        FeatureStore(self.folder, kind=self.kind)
        _write_first(self.folder / recipe.id / RECIPE, json.dumps(recipe.described(), indent=2))
        self._established.add(recipe.id)

    def _path(self, recipe: Recipe, key: str) -> Path:
        return self.folder / recipe.id / key[:2] / f"{key}{SUFFIX}"


def _layout(folder: Path) -> Layout | None:
    """Of a store that is there; None where one can be made.

    Raises:
        OptionError: the folder holds something else.
    """
    # Looked at first: whoever makes a store just now writes its layout before all else.
    holds_others = folder.is_dir() and any(not name.startswith(".") for name in os.listdir(folder))
    try:
        return Layout.model_validate_json((folder / _STORE).read_bytes())
    except FileNotFoundError:
        if holds_others:
            raise OptionError(f"{str(folder)!r} is no store of features, and holds other things") from None
        return None
    except (NotADirectoryError, ValidationError):
        raise OptionError(f"{str(folder)!r} is no store of features that can be read here") from None


def _write_first(path: Path, text: str) -> None:
    """Whole, and only if nobody else has; for everybody whom the umask lets read."""
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}")
    try:
        with fresh.open("w") as file:
            file.write(text + "\n")
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(fresh, path)
        except FileExistsError:
            pass
        except OSError:  # a file system without links: who is last wins, and is looked at again
            fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)

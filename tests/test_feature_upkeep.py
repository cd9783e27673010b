"""A store of features is shown, checked and made smaller, by the command line too."""

import os
import time
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from vidseq.__main__ import main
from vidseq.cli import app
from vidseq.config import EncoderConfig, Picture, Sampling
from vidseq.errors import OptionError
from vidseq.features.store import FeatureStore, Recipe
from vidseq.features.upkeep import contents, damaged, prune

OLD, NEW = (Recipe(EncoderConfig(), "00" * 32, Picture(), Sampling(frames_per_second=rate)) for rate in (8, 4))
CLIPS = ["aa" * 32, "bb" * 32]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two clips, under two recipes each, and a view of one."""
    store = FeatureStore(tmp_path / "store")
    for recipe in (OLD, NEW):
        for key in (*CLIPS, f"{CLIPS[0]}-{'cc' * 8}"):
            store.write(recipe, key, [({"feature_TD": np.ones((4, 3), np.float32)}, np.arange(4.0))])
    return store.folder


def kept(folder: Path) -> list[tuple[str, str]]:
    return sorted((file.parts[-3], file.stem) for file in folder.rglob("*.safetensors"))


def said(*arguments: object) -> str:
    result = CliRunner().invoke(app, ["store", *map(str, arguments)], catch_exceptions=False)
    return f"{result.exit_code} {result.output}"


def test_contents_are_told_by_recipe_the_newest_last(folder: Path) -> None:
    hour_ago = time.time() - 3600
    for file in (folder / NEW.id).rglob("*.safetensors"):
        os.utime(file, (hour_ago, hour_ago))
    assert [(each.recipe, each.num_files) for each in contents(folder)] == [(NEW.id, 3), (OLD.id, 3)]
    assert sum(each.num_bytes for each in contents(folder)) == sum(
        file.stat().st_size for file in folder.rglob("*.safetensors")
    )
    shown = said("show", folder)
    assert OLD.id in shown and NEW.id in shown and "efficientnet-lite0" in shown and "kept as float32" in shown


def test_a_damaged_file_is_found_and_removed(folder: Path) -> None:
    assert [file for file in damaged(folder) if file] == []
    victim = next(folder.rglob("*.safetensors"))
    data = bytearray(victim.read_bytes())
    data[-1] ^= 1
    victim.write_bytes(data)
    assert [file for file in damaged(folder) if file] == [victim]
    assert said("verify", folder).startswith("1 damaged: ") and victim.exists()
    assert "5 of 6 files are whole" in said("verify", folder, "--remove") and not victim.exists()
    assert said("verify", folder) == "0 5 of 5 files are whole\n"


def test_a_recipe_goes_with_all_its_clips(folder: Path) -> None:
    num_files, num_bytes = prune(folder, recipes=[OLD.id])
    assert num_files == 3 and num_bytes > 0
    assert [recipe for recipe, _ in kept(folder)] == [NEW.id] * 3
    assert not (folder / OLD.id).exists()


def test_a_clip_goes_from_every_recipe_with_all_its_views(folder: Path) -> None:
    assert "removed 4 files" in said("prune", folder, "--clip", CLIPS[0])
    assert kept(folder) == sorted((recipe.id, CLIPS[1]) for recipe in (OLD, NEW))


def test_a_clip_that_is_not_there_is_told(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "other.mp4").write_bytes(b"other")
    with pytest.raises(SystemExit, match="2"):
        main(["store", "prune", str(folder), "--clip", str(tmp_path / "other.mp4")])
    assert "there are no features of" in capsys.readouterr().err and len(kept(folder)) == 6


def test_features_whose_recipe_was_pruned_meanwhile_are_seen_and_can_go(folder: Path) -> None:
    (folder / OLD.id / "recipe.json").unlink()
    assert {each.recipe for each in contents(folder)} == {OLD.id, NEW.id}
    assert "nobody knows" in said("show", folder)
    assert "removed 4 files" in said("prune", folder, "--clip", CLIPS[0])


def test_what_a_killed_writer_left_goes_a_day_later(folder: Path) -> None:
    halves = [folder / OLD.id / CLIPS[0][:2] / f".{CLIPS[0]}.safetensors.{number}-1" for number in range(2)]
    for half in halves:
        half.touch()
    os.utime(halves[0], (time.time() - 90_000,) * 2)
    prune(folder, clips=["ff" * 32])
    assert [half.exists() for half in halves] == [False, True] and len(kept(folder)) == 6


def test_what_is_old_goes(folder: Path) -> None:
    week_ago = time.time() - 7 * 86400
    (victim,) = (folder / OLD.id).rglob(f"{CLIPS[1]}.safetensors")
    os.utime(victim, (week_ago, week_ago))
    assert "removed 1 files" in said("prune", folder, "--older-than", "6d")
    assert (OLD.id, CLIPS[1]) not in kept(folder) and len(kept(folder)) == 5


@pytest.mark.parametrize("arguments", [["--older-than", "soon"], []])
def test_what_cannot_be_pruned_is_told(folder: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["store", "prune", str(folder), *arguments])
    assert "--older-than" in capsys.readouterr().err and len(kept(folder)) == 6


def test_a_recipe_that_is_not_there_and_a_store_that_is_none_are_told(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=f"no features of 0123 in .*, but of .*{NEW.id}"):
        prune(folder, recipes=["0123"])
    with pytest.raises(OptionError, match="there is no store of features"):
        contents(tmp_path / "gone")

"""The command line as a person meets it: what it writes, what it prints, and one sentence for every mistake."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.toy_models import toy_checkpoint
from tests.toy_videos import write_clip
from training.render import render_clips
from vidseq.checkpoint import load_checkpoint
from vidseq.schemas import Prediction

SMALL = ("--backbone", "timm:test_efficientnet", "--weights", "none", "--size", "32", "--epochs", "3")
Completed = subprocess.CompletedProcess[str]


def vidseq(*arguments: object) -> Completed:
    command = [sys.executable, "-m", "vidseq", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rendered")
    render_clips(folder, num_clips=24, seed=3, picture_size=48)
    return folder


@pytest.fixture(scope="module")
def trained(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Completed]:
    model = tmp_path_factory.mktemp("trained") / "model"
    return model, vidseq("train", clips, "--out", model, "--group-by", "scene", "--background", "still", *SMALL)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clip") / "clip.mp4", num_frames=30)


def test_training_prints_both_rows_and_leaves_a_model_with_its_card(trained: tuple[Path, Completed]) -> None:
    model, run = trained
    assert run.returncode == 0, run.stderr
    assert "mean-pool baseline" in run.stdout and "confusion" in run.stdout
    assert "clips held out" in (model / "card.md").read_text()
    assert load_checkpoint(model).config.heads.background == "still"
    assert not list(model.with_name("model.run").glob("*.pt")), "what a resume needs goes when the run is done"
    assert list(model.with_name("model.run").rglob("events.*")), "TensorBoard has its logs"


def test_the_same_command_gives_the_same_model(clips: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        assert vidseq("train", clips, "--out", tmp_path / name / "model", "--seed", 5, *SMALL).returncode == 0
    one, other = (load_checkpoint(tmp_path / name / "model").info.sha256 for name in ("a", "b"))
    assert one == other


def test_folds_measure_every_clip_and_then_train_on_all(clips: Path, tmp_path: Path) -> None:
    run = vidseq("train", clips, "--out", tmp_path / "model", "--group-by", "scene", "--folds", 3, *SMALL)
    assert run.returncode == 0, run.stderr
    assert "never saw its group" in (tmp_path / "model" / "card.md").read_text()
    assert " 24 " in run.stdout


def test_evaluate_writes_the_figures_of_model_and_baseline(
    trained: tuple[Path, Completed], clips: Path, tmp_path: Path
) -> None:
    figures = tmp_path / "figures.json"
    run = vidseq("evaluate", trained[0], clips, "--json", figures)
    assert run.returncode == 0, run.stderr
    found = json.loads(figures.read_text())
    assert found["clips"]["num"] == 24 and found["frames"]["num"] > 24
    assert {"accuracy", "top5", "macro_f1", "confusion"} <= found["clips"].keys()
    assert {"accuracy", "accuracy_foreground", "macro_f1"} <= found["frames"]["baseline"].keys()


def test_evaluate_names_the_labels_that_the_model_does_not_know(
    trained: tuple[Path, Completed], tmp_path: Path
) -> None:
    (tmp_path / "juggle").mkdir()
    write_clip(tmp_path / "juggle" / "a.mp4", num_frames=10)
    run = vidseq("evaluate", trained[0], tmp_path)
    assert run.returncode == 2 and "juggle" in run.stderr and "Traceback" not in run.stderr


def test_predict_prints_a_timeline_and_draws_it(clip: Path, tmp_path: Path) -> None:
    picture = tmp_path / "timeline.png"
    run = vidseq("predict", toy_checkpoint(tmp_path / "toy"), clip, "--picture", picture)
    assert run.returncode == 0, run.stderr
    assert "action" in run.stdout and "█" in run.stdout
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_predict_as_json_is_one_prediction_and_nothing_else(clip: Path, tmp_path: Path) -> None:
    run = vidseq("predict", toy_checkpoint(tmp_path / "toy"), clip, "--json", "--top-k", 2)
    prediction = Prediction.model_validate_json(run.stdout)
    assert len(prediction.top) == 2 and prediction.sampled.num_frames == len(prediction.frames)
    assert run.stderr == ""


def test_models_lists_a_folder(tmp_path: Path) -> None:
    toy_checkpoint(tmp_path / "first")
    toy_checkpoint(tmp_path / "second")
    run = vidseq("models", tmp_path)
    assert run.returncode == 0 and "first" in run.stdout and "second" in run.stdout


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("predict", "absent", "clip.mp4"), "there is no model folder at absent"),
        (("predict", "{model}", "absent.mp4"), "absent.mp4"),
        (("predict", "{model}", "{text}"), "not MP4/MOV, Matroska/WebM, AVI or MPEG-TS"),
        (
            ("predict", "{model}", "{clip}", "--start", "5", "--end", "2"),
            "end_seconds 2.0 is not after start_seconds 5.0",
        ),
        (("predict", "{model}", "{clip}", "--start", "100"), "no frame"),
        (("predict", "{model}", "{clip}", "--picture", "timeline.doc"), ".png, .svg or .pdf"),
        (("train", "absent", "--out", "m"), "no such folder"),
        (("train", "{folder}", "--out", "m", "--num-layers", "9"), "--num-layers"),
        (("train", "{folder}", "--out", "m", "--frames-per-second", "often"), "neither a number nor native"),
        (("models", "{folder}"), "there is no model in"),
        (("serve", "absent"), "absent"),
        (("score", "{model}", "nothing/*.mp4", "--out", "scores.parquet"), "nothing/*.mp4"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(
    arguments: tuple[str, ...], sentence: str, clip: Path, tmp_path: Path
) -> None:
    text, folder = tmp_path / "clip.mp4", tmp_path / "empty"
    text.write_text("ffconcat version 1.0\nfile other.mp4\n")
    folder.mkdir()
    places = {"model": toy_checkpoint(tmp_path / "toy"), "clip": clip, "text": text, "folder": folder}
    run = vidseq(*(argument.format(**places) for argument in arguments))
    assert run.returncode == 2
    assert sentence in run.stderr and "Traceback" not in run.stderr and run.stdout == ""


def test_a_clip_that_cannot_be_decoded_is_named_and_can_be_skipped(clips: Path, tmp_path: Path) -> None:
    with (clips / "clips.csv").open() as table:
        rows = list(csv.DictReader(table))[:8]
    (tmp_path / "clips.csv").write_text("path,label\n" + "".join(f"{i}.mp4,{r['label']}\n" for i, r in enumerate(rows)))
    for index, row in enumerate(rows):
        (tmp_path / f"{index}.mp4").write_bytes((clips / row["path"]).read_bytes() if index else b"broken")
    stopped = vidseq("train", tmp_path, "--out", tmp_path / "stopped", *SMALL)
    skipped = vidseq("train", tmp_path, "--out", tmp_path / "skipped", "--on-bad", "skip", *SMALL)
    assert stopped.returncode == 2 and "0.mp4" in stopped.stderr and not (tmp_path / "stopped").exists()
    assert skipped.returncode == 0 and "left out" in skipped.stderr and (tmp_path / "skipped").is_dir()

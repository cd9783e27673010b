"""The command line as a person meets it: what it writes, what it prints, and one sentence for every mistake."""

import csv
import inspect
import itertools
import json
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import get_args

import pytest
import typer
from typer.testing import CliRunner, Result

from tests.toy_models import FRAMES, toy_checkpoint
from tests.toy_videos import write_clip
from training.options import Options, configure
from training.recipes import RECIPES, default, motion
from training.render import render_clips
from vidseq import cli
from vidseq.__main__ import main
from vidseq.checkpoint import load_checkpoint, save_checkpoint
from vidseq.config import Calibration
from vidseq.engine import direct
from vidseq.errors import VidseqError
from vidseq.rehearsal import rehearse
from vidseq.schemas import Prediction

SMALL = ("--backbone", "timm:test_efficientnet", "--weights", "none", "--size", "32", "--epochs", "3")
Completed = subprocess.CompletedProcess[str]


def vidseq(*arguments: object) -> Completed:
    command = [sys.executable, "-m", "vidseq", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)


def in_process(*arguments: object) -> Result:
    """The same without a new process, and without the last step: from an error to an exit code."""
    return CliRunner().invoke(cli.app, list(map(str, arguments)))


def refused(*arguments: object) -> str:
    """The sentence of a command that must end in one of our own errors."""
    error = in_process(*arguments).exception
    assert isinstance(error, VidseqError), error
    return str(error)


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


def test_a_trained_model_brings_its_answer_to_the_known_clip(trained: tuple[Path, Completed]) -> None:
    checkpoint = load_checkpoint(trained[0])
    assert checkpoint.golden is not None and checkpoint.golden.made_by["device"] == "cpu"
    assert rehearse(checkpoint, direct(checkpoint.model), device="cpu") is None


def test_training_prints_the_baselines_too_and_leaves_a_model_with_its_card(trained: tuple[Path, Completed]) -> None:
    model, run = trained
    assert run.returncode == 0, run.stderr
    assert "mean pool" in run.stdout and "frame alone" in run.stdout and "does it use time?" in run.stdout
    assert "clips held out" in (model / "card.md").read_text()
    assert load_checkpoint(model).config.heads.background == "still"
    assert not list(model.with_name("model.run").glob("*.pt")), "what a resume needs goes when the run is done"
    assert list(model.with_name("model.run").rglob("events.*")), "TensorBoard has its logs"


def interrupted(*arguments: object, when: Path) -> Completed:
    """The command, sent Ctrl-C as soon as there is a file `when`."""
    command = [sys.executable, "-m", "vidseq", *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        while process.poll() is None and not when.exists():
            time.sleep(0.005)
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=240)
    return subprocess.CompletedProcess(command, process.returncode, stdout, stderr)


def test_an_interrupted_training_continues_and_gives_the_model_of_an_uninterrupted_one(
    clips: Path, tmp_path: Path
) -> None:
    options = (*SMALL, "--seed", 5, "--epochs", 120, "--patience", 120)
    whole, model = tmp_path / "whole" / "model", tmp_path / "torn" / "model"
    assert vidseq("train", clips, "--out", whole, *options).returncode == 0
    stopped = interrupted("train", clips, "--out", model, *options, when=tmp_path / "torn" / "model.run" / "gru.pt")
    assert stopped.returncode == 130
    assert "interrupted; the same command continues from the last epoch" in stopped.stderr
    assert "Traceback" not in stopped.stderr and not model.exists()
    resumed = vidseq("train", clips, "--out", model, *options)
    assert "gru: continuing after epoch" in resumed.stderr
    assert load_checkpoint(model).info.sha256 == load_checkpoint(whole).info.sha256


def test_folds_measure_every_clip_and_then_train_on_all(clips: Path, tmp_path: Path) -> None:
    run = in_process("train", clips, "--out", tmp_path / "model", "--group-by", "scene", "--folds", 3, *SMALL)
    assert run.exit_code == 0, run.stderr
    assert "never saw its group" in (tmp_path / "model" / "card.md").read_text()
    assert " 24 " in run.stdout
    assert not list((tmp_path / "model.run").glob("*.pt"))


def test_clips_that_look_the_same_on_both_sides_of_folds_are_told_once(clips: Path, tmp_path: Path) -> None:
    folder = tmp_path / "clips"
    shutil.copytree(clips, folder)
    with (folder / "clips.csv").open() as table:
        path, label = next(csv.reader(itertools.islice(table, 1, 2)))[:2]
    shutil.copy(folder / path, folder / "again.mp4")
    with (folder / "clips.csv").open("a") as table:
        table.write(f"again.mp4,{label},elsewhere\n")
    run = in_process("train", folder, "--out", tmp_path / "model", "--group-by", "scene", "--folds", 3, *SMALL)
    assert len(re.findall(r"look nearly the same \(1\.000\)", run.stderr)) == 1


def test_after_the_folds_model_and_baseline_train_for_their_own_median_epochs(clips: Path, tmp_path: Path) -> None:
    steep = (*SMALL, "--epochs", 12, "--learning-rate", 0.02, "--dropout", 0)  # the gru overfits at once
    run = in_process("train", clips, "--out", tmp_path / "model", "--group-by", "scene", "--folds", 3, *steep)
    told = re.search(r"epochs of the folds: (\d+), and (\d+) and (\d+) for the baselines", run.stderr)
    assert told is not None and told[1] != told[2]
    assert re.search(rf"training gru \S+ {told[1]}/{told[1]} ", run.stderr)
    assert re.search(rf"training mean-pool \S+ {told[2]}/{told[2]} ", run.stderr)


@pytest.fixture(scope="module")
def folded(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with a lookahead, and with enough clips that a model had not seen to be calibrated."""
    model = tmp_path_factory.mktemp("folded") / "model"
    run = in_process("train", clips, "--out", model, "--folds", 3, "--lookahead-seconds", 0.25, *SMALL)
    assert run.exit_code == 0, run.stderr
    return model


def test_a_lookahead_is_part_of_the_model_and_of_its_card(folded: Path) -> None:
    assert load_checkpoint(folded).config.lookahead_frames == 2
    assert "* lookahead: 0.25 s" in (folded / "card.md").read_text()


def test_folds_calibrate_on_all_clips(folded: Path) -> None:
    calibration = load_checkpoint(folded).config.calibration
    assert calibration is not None and calibration.elapsed_seconds == (0.0, 0.5, 1.0, 2.0)
    assert "Found on 24 clips" in (folded / "card.md").read_text()


def backbone_of(model: Path) -> bytes:
    (path,) = model.glob("backbone-*.safetensors")
    return path.read_bytes()


def test_the_cnn_is_trained_too_and_its_model_answers(clips: Path, clip: Path, tmp_path: Path) -> None:
    """The same seed draws the same backbone, which is stored; of one that is trained two blocks have moved."""
    frozen, model = tmp_path / "frozen", tmp_path / "model"
    options = ("--group-by", "scene", *SMALL)
    changes = ("--augment-frames", "crop,colour")
    assert in_process("train", clips, "--out", frozen, *options, *changes, "--views", 2).exit_code == 0
    run = in_process("train", clips, "--out", model, *options, *changes, "--unfreeze", 2, "--checkpoint-gradients")
    assert run.exit_code == 0, run.stderr
    assert backbone_of(model) != backbone_of(frozen)
    assert not list(tmp_path.glob("model.run/*.pt"))
    assert Prediction.model_validate_json(in_process("predict", model, clip, "--json").stdout).frames
    assert in_process("evaluate", model, clips).exit_code == 0


def relabelled(clips: Path, folder: Path) -> Path:
    """The same clips, of which a third shows two actions, a third one, and a third none."""
    shutil.copytree(clips, folder)
    with (clips / "clips.csv").open() as file:
        paths = [row["path"] for row in csv.DictReader(file)]
    rows = zip(paths, itertools.cycle(("way/up|shape/big/round", "way/up", "|")), strict=False)
    (folder / "clips.csv").write_text("path,label\n" + "".join(f"{path},{label}\n" for path, label in rows))
    (folder / "segments.csv").unlink()
    return folder


def test_several_actions_are_trained_with_thresholds_of_their_own_and_names_keep_their_slashes(
    clips: Path, clip: Path, tmp_path: Path
) -> None:
    """From the table over training, checkpoint, answer and evaluation."""
    folder, model, labels = relabelled(clips, tmp_path / "clips"), tmp_path / "model", ("shape/big/round", "way/up")
    run = in_process("train", folder, "--out", model, "--several", "--folds", 3, *SMALL)
    assert run.exit_code == 0, run.stderr
    heads = load_checkpoint(model).config.heads
    assert heads.several and heads.action_labels == labels and len(heads.thresholds) == 2
    assert "of 24 clips not learnt from, these thresholds had the best F1: shape/big/round from" in run.stderr
    prediction = Prediction.model_validate_json(in_process("predict", model, clip, "--json").stdout)
    threshold_of = dict(zip(labels, heads.thresholds, strict=True))
    said = [scored for scored in prediction.top if scored.score >= threshold_of[scored.label]]
    assert list(prediction.actions) == said and {scored.label for scored in prediction.top} == set(labels)
    assert "way/up" in in_process("evaluate", model, folder).stdout


def test_an_unknown_action_is_one_below_the_score_that_the_clips_held_out_ask_for(clips: Path, tmp_path: Path) -> None:
    """Of a model that says nothing before it has seen the whole clip, too: it has one temperature for any time."""
    model = tmp_path / "model"
    options = ("--unknown-precision", 0.05, "--bidirectional", "--folds", 3, *SMALL)
    run = in_process("train", clips, "--out", model, *options)
    assert run.exit_code == 0, run.stderr
    config = load_checkpoint(model).config
    assert config.calibration is not None and config.calibration.elapsed_seconds == (0.0,)
    assert f"an action below {config.heads.unknown_below:.2f} is unknown: of 24 clips not learnt from" in run.stderr


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--unknown-below", 0.5, "--unknown-precision", 0.9), "give either"),
        (("--unknown-below", 1.5), "--unknown-below: Input should be less than or equal to 1"),
        (("--unknown-precision", 0), "--unknown-precision: Input should be greater than 0"),
    ],
)
def test_what_cannot_be_unknown_is_named(
    clips: Path, tmp_path: Path, options: tuple[object, ...], sentence: str
) -> None:
    assert sentence in refused("train", clips, "--out", tmp_path / "model", *options, *SMALL)


def test_several_actions_and_an_unknown_one_do_not_go_together(clips: Path, tmp_path: Path) -> None:
    folder = relabelled(clips, tmp_path / "clips")
    for option in ("--unknown-below", "--unknown-precision"):
        sentence = refused("train", folder, "--out", tmp_path / "model", "--several", option, 0.5, *SMALL)
        assert "unknown" in sentence and "says" in sentence


def test_predict_exits_early_after_the_time_to_hold_and_says_so(clip: Path, tmp_path: Path) -> None:
    toy, sure = load_checkpoint(toy_checkpoint(tmp_path / "toy")), tmp_path / "sure"
    config = toy.config.model_copy(update={"calibration": Calibration(elapsed_seconds=(0.0,), temperatures=(1e-4,))})
    assert toy.baseline is not None
    save_checkpoint(sure, config=config, model=toy.model, baseline=toy.baseline, documents={}, version="1")
    assert "stopped at 0.50 s" in in_process("predict", sure, clip, "--early-exit", 0.9, "--early-hold", 0.5).stdout
    prediction = Prediction.model_validate_json(in_process("predict", sure, clip, "--early-exit", 0.9, "--json").stdout)
    assert prediction.early_exit.seconds == prediction.sampled.end_seconds == 1.0
    assert prediction.early_exit.score > 0.9


def test_a_few_clips_held_out_calibrate_nothing_and_early_exit_is_refused(
    trained: tuple[Path, Completed], clip: Path
) -> None:
    assert load_checkpoint(trained[0]).config.calibration is None
    assert "model is not calibrated by elapsed time" in refused("predict", trained[0], clip, "--early-exit", 0.9)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--early-exit", 0.4), "--early-exit: Input should be greater than 0.5"),
        (("--early-exit", 0.9, "--early-hold", -1), "--early-hold: Input should be greater than or equal to 0"),
        (("--early-hold", 2), "--early-hold says how long to wait with --early-exit"),
    ],
)
def test_a_wish_to_exit_early_that_makes_no_sense_is_named(
    options: tuple[object, ...], sentence: str, clip: Path, tmp_path: Path
) -> None:
    assert sentence in refused("predict", toy_checkpoint(tmp_path / "toy"), clip, *options)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--bidirectional",), "lookahead_seconds is for models that stream"),
        (("--max-frames", 8), "lookahead_seconds is for models that stream"),
        (("--frames-per-second", "native"), "lookahead_seconds needs a sampling rate"),
        (("--frames-per-second", 2), "lookahead_seconds 0.2 is less than half the time from one sampled frame"),
    ],
)
def test_a_lookahead_that_cannot_be_is_named_before_a_clip_is_decoded(
    options: tuple[object, ...], sentence: str, clips: Path, tmp_path: Path
) -> None:
    assert sentence in refused("train", clips, "--out", tmp_path / "m", "--lookahead-seconds", 0.2, *options)


def test_a_lookahead_without_frame_labels_is_named(split_clips: Path, tmp_path: Path) -> None:
    assert "delays frame labels, and the model has none" in refused(
        "train", split_clips, "--out", tmp_path / "m", "--lookahead-seconds", 0.5
    )


@pytest.fixture
def split_clips(clips: Path, tmp_path: Path) -> Path:
    """Four clips to train on, two to validate on, one to test."""
    with (clips / "clips.csv").open() as table:
        rows = list(csv.DictReader(table))[:7]
    folder = tmp_path / "split"
    folder.mkdir()
    for index, row in enumerate(rows):
        (folder / f"{index}.mp4").write_bytes((clips / row["path"]).read_bytes())
    splits = ["train"] * 4 + ["val"] * 2 + ["test"]
    lines = [f"{i}.mp4,{row['label']},{split}" for i, (row, split) in enumerate(zip(rows, splits, strict=True))]
    (folder / "clips.csv").write_text("\n".join(["path,label,split", *lines]))
    return folder


def test_clips_marked_test_are_what_is_measured(split_clips: Path, tmp_path: Path) -> None:
    run = in_process("train", split_clips, "--out", tmp_path / "model", *SMALL)
    assert run.exit_code == 0, run.stderr
    assert "Measured: 1 clip marked test" in (tmp_path / "model" / "card.md").read_text()
    assert "| model | 1 |" in (tmp_path / "model" / "card.md").read_text()


def test_folds_ignore_a_given_split_aloud(split_clips: Path, tmp_path: Path) -> None:
    run = in_process("train", split_clips, "--out", tmp_path / "model", "--folds", 2, *SMALL)
    assert run.exit_code == 0, run.stderr
    assert run.stderr.count("--folds ignores the given split") == 1
    assert "| model | 7 |" in (tmp_path / "model" / "card.md").read_text()


def test_evaluate_leaves_out_labels_of_a_kind_that_the_model_does_not_say(tmp_path: Path) -> None:
    model = toy_checkpoint(tmp_path / "toy", frame_labels=(), background=None)
    folder = tmp_path / "clips"
    (folder / "grow").mkdir(parents=True)
    write_clip(folder / "grow" / "a.mp4", num_frames=10)
    (folder / "segments.csv").write_text(f"path,start_seconds,end_seconds,label\ngrow/a.mp4,0,1,{FRAMES[0]}\n")
    run = in_process("evaluate", model, folder)
    assert run.exit_code == 0, run.exception
    assert "clips: 1" in run.stdout and "frames:" not in run.stdout
    assert "top 5" not in run.stdout, "there are three labels only"


def test_labels_are_shown_as_they_are_written(tmp_path: Path) -> None:
    labels = ("[red]stop[/red]", "go")
    model = toy_checkpoint(tmp_path / "toy", action_labels=labels, frame_labels=(), background=None)
    assert labels[0] in in_process("models", model).stdout
    (tmp_path / "clips").mkdir()
    write_clip(tmp_path / "clips" / "a.mp4", num_frames=10)
    (tmp_path / "clips" / "clips.csv").write_text(f"path,label\na.mp4,{labels[0]}\n")
    assert labels[0] in in_process("evaluate", model, tmp_path / "clips").stdout


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


def test_predict_gives_the_same_labels_in_the_sandbox_and_without(tmp_path: Path) -> None:
    model, clip = toy_checkpoint(tmp_path / "toy"), write_clip(tmp_path / "clip.mp4")
    outputs = [in_process("predict", model, clip, "--json", option).stdout for option in ("--sandbox", "--no-sandbox")]
    boxed, here = map(Prediction.model_validate_json, outputs)
    assert (boxed.frames, boxed.video) == (here.frames, here.video)


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
        (("score", "{model}", "nothing/*.mp4", "--out", "scores.parquet"), "nothing/*.mp4"),
    ],
)
def test_a_mistake_is_one_sentence_and_exit_code_2(
    arguments: tuple[str, ...], sentence: str, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Here, not in a process for each: what takes long there is to import torch."""
    text, folder = tmp_path / "clip.mp4", tmp_path / "empty"
    text.write_text("ffconcat version 1.0\nfile other.mp4\n")
    folder.mkdir()
    places = {"model": toy_checkpoint(tmp_path / "toy"), "clip": clip, "text": text, "folder": folder}
    with pytest.raises(SystemExit) as left:
        main([argument.format(**places) for argument in arguments])
    printed = capsys.readouterr()
    assert (left.value.code, printed.out) == (2, "")
    assert sentence in printed.err and "Traceback" not in printed.err


def test_a_service_of_no_model_is_one_sentence_and_exit_code_2() -> None:
    """In a process of its own, in which nobody has imported Ray before."""
    run = vidseq("serve", "absent")
    assert (run.returncode, run.stdout) == (2, "")
    assert re.fullmatch(r"vidseq: there is no model folder at \S+/absent\n", run.stderr)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--out", "."), "does not name a folder"),
        (("--out", "{taken}"), "exists and is not a model"),
        (("--out", "{taken}/notes.txt/model"), "nothing can be written into"),
        (("--out", "{clips}/new/model"), "whose folders are classes: choose a place outside"),
        (("--out", "m", "--seed", "202611271200"), "--seed: Input should be less than 4294967296"),
        (("--out", "m", "--folds", "9"), "9 folds of 3 groups"),
        (("--out", "m", "--folds", "2"), "leave one group to train on"),
        (("--out", "m", "--device", "foo"), "--device: 'foo' cannot be used"),
        (("--out", "m", "--device", "cuda:77"), "--device: 'cuda:77' cannot be used"),
        (("--out", "m", "--patience", "0"), "--patience"),
        (("--out", "m", "--views", "0"), "--views: Input should be greater"),
        (("--out", "m", "--views", "2"), "give both, or neither"),
        (("--out", "m", "--augment-frames", "zoom"), "--augment-frames: Input should be 'wide', 'crop'"),
        (("--out", "m", "--augment-frames", "wide", "--unfreeze", "1"), "'wide' is for views"),
        (("--out", "m", "--augment-frames", "wide", "--views", "3"), "'wide' makes one view of its own"),
        (
            ("--out", "m", "--augment-frames", "wide", "--views", "2", "--fit", "letterbox"),
            "all of the frame in one view",
        ),
        (("--out", "m", "--unfreeze", "some"), "--unfreeze: 'some' is neither none, all nor a number of blocks"),
        (("--out", "m", "--unfreeze", "0"), "--unfreeze: '0' is neither"),
        (("--out", "m", "--unfreeze", "99"), "has 18 blocks; 99 cannot be unfrozen"),
        (("--out", "m", "--unfreeze", "1", "--folds", "3"), "each of 3 folds would need a CNN of its own"),
    ],
)
@pytest.mark.filterwarnings("ignore:CUDA initialization")
def test_a_mistake_is_found_before_a_clip_is_opened(options: tuple[str, ...], sentence: str, tmp_path: Path) -> None:
    for name in ("jump/a.mp4", "jump/b.mp4", "wave/c.mp4", "taken/notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_bytes(b"no video")
    (tmp_path / "taken").rename(tmp_path.with_name(f"{tmp_path.name}-taken"))
    taken = tmp_path.with_name(f"{tmp_path.name}-taken")
    given = (option.format(taken=taken, clips=tmp_path) for option in options)
    assert sentence in refused("train", tmp_path, *given)


def test_what_the_system_refuses_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["train", "a" * 300, "--out", "m"])
    assert left.value.code == 2
    assert capsys.readouterr().err == f"vidseq: File name too long: {'a' * 300}\n"


def test_an_interrupted_command_says_so() -> None:
    app = typer.Typer(cls=cli.Commands)

    @app.command()
    def wait() -> None:
        raise KeyboardInterrupt

    @app.command()
    def train() -> None:
        raise KeyboardInterrupt

    run = CliRunner().invoke(app, ["wait"])
    assert (run.exit_code, run.stderr) == (130, "vidseq: interrupted\n")


def test_evaluate_asks_for_a_place_for_its_figures_before_it_works() -> None:
    assert "--json: no file can be written at no/such/x.json" in refused(
        "evaluate", "absent", "absent", "--json", "no/such/x.json"
    )


@pytest.mark.filterwarnings("ignore:CUDA initialization")
def test_evaluate_and_predict_name_a_device_that_is_not_there(clip: Path, tmp_path: Path) -> None:
    model = toy_checkpoint(tmp_path / "toy")
    assert "--device: 'foo'" in refused("predict", model, clip, "--device", "foo")
    assert "--device: 'foo'" in refused("evaluate", model, clip.parent, "--device", "foo")


def test_the_defaults_of_the_command_are_those_of_the_recipe() -> None:
    parameters = inspect.signature(cli.train.train).parameters
    assert Options.model_validate({name: parameters[name].default for name in Options.model_fields}) == default()


def test_every_recipe_can_be_asked_for_and_makes_a_run() -> None:
    assert set(get_args(cli.train.RecipeName)) == set(RECIPES)
    for recipe in RECIPES.values():
        config, settings = configure(recipe(), action_labels=("a", "b"), frame_labels=(), background=None)
        assert config.heads.action_labels == ("a", "b")
        assert settings.epochs == recipe().epochs


def test_what_is_typed_comes_on_top_of_the_recipe() -> None:
    context = (
        typer.main.get_command(cli.app)
        .commands["train"]
        .make_context(
            "train", ["clips", "--out", "m", "--recipe", "motion", "--hidden-size", "64", "--motion", "last, pooled"]
        )
    )
    options = cli.train.options_of(context, "motion")
    assert options == motion().model_copy(update={"hidden_size": 64, "motion": ("last", "pooled")})


class NoModels(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(b'{"models": []}')

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def empty_service() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), NoModels) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_service_without_models_is_named(empty_service: str) -> None:
    assert refused("models", "--url", empty_service) == f"there is no model at {empty_service}"


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

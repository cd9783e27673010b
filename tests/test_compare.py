"""Two models on the same clips: the second minus the first, what changed, costs, and what makes no sense."""

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner, Result

from tests.toy_models import toy_checkpoint
from tests.toy_scores import CONFIG, dataset, scores
from training.data.example import Example
from training.measure.answers import Answers, Truth
from training.measure.compare import check_labels, compare, measure_costs
from training.measure.figures import Comparison, Cost
from training.render import render_clips
from vidseq import cli
from vidseq.config import HeadsConfig, Sampling
from vidseq.errors import OptionError
from vidseq.model import SequenceModel
from vidseq.schemas import ModelInfo

ACTIONS = ("brighten", "close", "darken", "grow", "open", "shrink")
FREE = Cost(num_parameters=0, state_bytes=None, cpu_ms_a_frame=0.0)
OLD, NEW = (ModelInfo(name=name, version="1", sha256="0" * 64) for name in ("old", "new"))


def of(truth: str, first: str, second: str, *, groups: str | None = None) -> Comparison:
    data = dataset(truth, groups=groups)
    known = Truth.of(data, data.examples(range(len(truth))))
    answers = Answers(known, scores(first), CONFIG), Answers(known, scores(second, frames="..xxxx"), CONFIG)
    return compare(answers, models=(OLD, NEW), costs=(FREE, FREE))


def test_the_difference_is_the_second_minus_the_first() -> None:
    found = of("abca", first="aaaa", second="abcb")
    assert [figures.accuracy for figures in found.clips] == [0.5, 0.75]
    pair = found.paired[0]
    assert (pair.unit, pair.figure, pair.against, pair.difference) == ("clips", "accuracy", "old", 0.25)
    assert pair.interval[0] < 0.25 < pair.interval[1] and pair.p > 0.5


def test_frames_and_segments_are_compared_too() -> None:
    found = of("ab", first="ab", second="ab")
    assert [figures.accuracy for figures in found.frames] == [1, pytest.approx(2 / 3)]
    assert [figures.f1_at_50 for figures in found.segments] == [100, pytest.approx(100 * 2 * 2 / (2 + 4))]


def test_changed_clips_are_listed_by_which_way_they_changed() -> None:
    found = of("abc?", first="aaca", second="bbcb")
    assert [(one.path, one.truth, one.first, one.second) for one in found.right_to_wrong] == [("0.mp4", "a", "a", "b")]
    assert [(one.path, one.truth, one.first, one.second) for one in found.wrong_to_right] == [("1.mp4", "b", "a", "b")]


def test_a_model_beside_itself_shows_no_difference() -> None:
    found = of("abcabc", first="abcaaa", second="abcaaa", groups="uuvvww")
    assert all(pair.difference == 0 and pair.p == 1 for pair in found.paired if pair.unit == "clips")
    assert found.right_to_wrong == found.wrong_to_right == ()


@pytest.mark.parametrize(
    ("first", "second", "sentence"),
    [
        ({"action_labels": ("a", "b")}, {"action_labels": ("a", "b", "c")}, "only one of them knows the actions c"),
        ({"action_labels": ("a", "b")}, {"action_labels": ("b", "a")}, "the same actions, in another order"),
        ({"action_labels": ("a", "b")}, {"frame_labels": ("a", "b")}, "one says actions, the other frame labels"),
        ({"action_labels": ("a", "b")}, {"action_labels": ("a", "b"), "several": True}, "one says several actions"),
        ({"frame_labels": ("x", "y")}, {"frame_labels": ("x", "z")}, "only one of them knows the frame labels y, z"),
        (
            {"frame_labels": ("x", "y")},
            {"frame_labels": ("x", "y"), "background": "x"},
            "their backgrounds are None and 'x'",
        ),
    ],
)
def test_models_that_say_different_things_are_refused_in_a_sentence(
    first: dict[str, object], second: dict[str, object], sentence: str
) -> None:
    one, other = (HeadsConfig.model_validate(heads) for heads in (first, second))
    with pytest.raises(OptionError, match=sentence):
        check_labels(("old", one), ("new", other))


def test_what_only_one_model_says_does_not_forbid_to_compare_the_rest() -> None:
    check_labels(("old", CONFIG.heads), ("new", HeadsConfig(action_labels=CONFIG.heads.action_labels)))


def test_a_larger_model_has_more_parameters_and_a_larger_state() -> None:
    examples = [Example(torch.zeros(64, 8), None, torch.zeros(64, dtype=torch.int64))] * 4
    timed = []
    for size in (8, 512):
        recurrent = CONFIG.recurrent.model_copy(update={"hidden_size": size, "projection_size": size})
        config = CONFIG.model_copy(update={"recurrent": recurrent})
        timed.append((SequenceModel(config, feature_size=8).eval(), examples))
    small, large = measure_costs(*timed)
    assert small.num_parameters < large.num_parameters
    assert small.state_bytes < large.state_bytes
    assert small.cpu_ms_a_frame > 0 and large.cpu_ms_a_frame > 0


def test_a_model_that_cannot_stream_has_no_state() -> None:
    recurrent = CONFIG.recurrent.model_copy(update={"bidirectional": True})
    model = SequenceModel(CONFIG.model_copy(update={"recurrent": recurrent}), feature_size=8).eval()
    timed = model, [Example(torch.zeros(4, 8), None, torch.zeros(4, dtype=torch.int64))]
    assert measure_costs(timed, timed)[0].state_bytes is None


# The command -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rendered")
    render_clips(folder, num_clips=6, seed=3, picture_size=32)
    return folder


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Of different weights, cells and rates, that say the same actions."""
    folder, labels = tmp_path_factory.mktemp("models"), {"action_labels": ACTIONS, "frame_labels": ("still", *ACTIONS)}
    old = toy_checkpoint(folder / "old", **labels)
    return old, toy_checkpoint(folder / "new", seed=1, cell="lstm", sampling=Sampling(frames_per_second=4), **labels)


def vidseq(*arguments: object) -> Result:
    return CliRunner().invoke(cli.app, list(map(str, arguments)))


def test_compare_prints_both_models_and_writes_what_it_prints(
    models: tuple[Path, Path], clips: Path, tmp_path: Path
) -> None:
    run = vidseq("compare", *models, clips, "--group-by", "scene", "--json", tmp_path / "c.json")
    assert run.exit_code == 0, run.exception
    found = Comparison.model_validate_json((tmp_path / "c.json").read_text())
    assert [model.name for model in found.models] == ["old", "new"] and found.num_groups == 3
    assert "new against old (3 groups)" in run.stdout
    assert f"{found.costs[1].num_parameters:,}" in run.stdout
    assert found.frames[0].num > found.frames[1].num, "each model at its own rate"
    for title, changed in (("right to wrong", found.right_to_wrong), ("wrong to right", found.wrong_to_right)):
        assert f"{title}: {len(changed) or 'no clip'}" in run.stdout
        assert all("/".join(Path(one.path).parts[-2:]) in run.stdout for one in changed)


def test_evaluate_takes_groups_for_its_intervals(models: tuple[Path, Path], clips: Path, tmp_path: Path) -> None:
    run = vidseq("evaluate", models[0], clips, "--group-by", "scene", "--json", tmp_path / "e.json")
    assert run.exit_code == 0, run.exception
    found = json.loads((tmp_path / "e.json").read_text())
    assert found["num_groups"] == 3 and {row["group"] for row in found["rows"]} == {"scene000", "scene001", "scene002"}
    assert len(found["clips"]["intervals"]["accuracy"]) == 2
    assert found["honesty"]["clips"][0]["name"] == "shuffled"
    assert {"segments", "calibration", "earliness", "paired"} <= found.keys()


def test_compare_refuses_other_labels_before_it_reads_a_clip(models: tuple[Path, Path], tmp_path: Path) -> None:
    other = toy_checkpoint(tmp_path / "other")
    error = vidseq("compare", models[0], other, tmp_path / "absent").exception
    assert isinstance(error, OptionError)
    assert str(error).startswith("old and other cannot be compared: only one of them knows the actions")

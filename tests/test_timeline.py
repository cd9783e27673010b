"""A timeline for people: names are shown as they are, and there is a picture for every kind of model."""

from pathlib import Path
from xml.etree import ElementTree

import pytest

from vidseq.errors import OptionError
from vidseq.schemas import (
    EarlyExited,
    FrameLabel,
    ModelInfo,
    Prediction,
    Sampled,
    Scored,
    Segment,
    Timings,
    VideoReport,
)
from vidseq.timeline import draw, show

PICTURE_TEXT = "{http://www.w3.org/2000/svg}"


def a_prediction(label: str = "wave", *, frames: bool = True, warning: str = "cut short") -> Prediction:
    """One of a video of one second: an action and, with `frames`, a label for each quarter of it."""
    return Prediction(
        action=Scored(label=label, score=0.75),
        actions=(Scored(label=label, score=0.75),),
        top=(Scored(label=label, score=0.75), Scored(label="rest", score=0.25)),
        frames=tuple(FrameLabel(seconds=n / 4, label=label, score=0.9) for n in range(4)) if frames else (),
        segments=(Segment(start_seconds=0.0, end_seconds=1.0, label=label, score=0.9),) if frames else (),
        sampled=Sampled(num_frames=4, frames_per_second=4.0, start_seconds=0.0, end_seconds=0.75),
        video=VideoReport(
            width=32,
            height=32,
            codec="h264",
            container="mp4",
            duration_seconds=1.0,
            frames_declared=4,
            frames_decoded=4,
            complete=True,
            warnings=(warning,),
        ),
        model=ModelInfo(name="toy", version="1", sha256="0" * 64),
        timings=Timings(decode_ms=0, encode_ms=0, recur_ms=0, queued_ms=0, total_ms=0),
    )


@pytest.mark.parametrize("name", ["clip [1080p] [final].mp4", "[/x]", "[bold]", "a\\[b]"])
def test_names_are_shown_as_they_are_written(capsys: pytest.CaptureFixture[str], name: str) -> None:
    show(a_prediction(name, warning=name), title=name)
    shown = capsys.readouterr().out
    assert shown.count(name) == 5  # title, warning, action, ribbon and segment


@pytest.mark.parametrize("name", ["a.png", "a.PNG", "a.svg", "a.Pdf"])
def test_a_picture_is_drawn_whatever_the_case_of_its_suffix(tmp_path: Path, name: str) -> None:
    draw(a_prediction(), tmp_path / name, title="clip")
    assert (tmp_path / name).stat().st_size > 1000


def test_another_suffix_or_no_folder_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"a\.gif is not"):
        draw(a_prediction(), tmp_path / "a.gif", title="clip")
    with pytest.raises(OptionError, match="no folder"):
        draw(a_prediction(), tmp_path / "gone" / "a.png", title="clip")


@pytest.mark.parametrize("frames", [True, False])
@pytest.mark.parametrize("label", ["$a$", "$\\nothing$", "a_b^c"])
def test_dollars_are_no_mathematics(tmp_path: Path, label: str, frames: bool) -> None:
    draw(a_prediction(label, frames=frames), tmp_path / "a.svg", title=label)
    drawn = (tmp_path / "a.svg").read_text()
    assert f"<!-- {label} -->" in drawn  # the axis; matplotlib draws letters as shapes and names them in comments
    assert f"<!-- {label}:  {label} 0.75 -->" in drawn


def test_a_model_of_actions_alone_gets_a_bar_for_each(tmp_path: Path) -> None:
    draw(a_prediction(frames=False), tmp_path / "a.svg", title="clip")
    drawn = (tmp_path / "a.svg").read_text()
    bars = [element.get("style") for element in ElementTree.fromstring(drawn).iter(f"{PICTURE_TEXT}path")]
    assert bars.count("fill: #4477aa") == bars.count("fill: #bbbbbb") == 1, "what is not said is grey"
    assert "<!-- wave -->" in drawn and "<!-- rest -->" in drawn


@pytest.mark.parametrize(
    ("num_said", "several", "line", "title"),
    [
        (1, False, "action  wave 0.75   (rest 0.25)", "clip:  wave 0.75"),
        (0, False, "action  unknown   (perhaps wave 0.75, rest 0.25)", "clip:  unknown"),
        (2, True, "actions  wave 0.75, rest 0.25", "clip:  wave 0.75, rest 0.25"),
        (1, True, "actions  wave 0.75   (not rest 0.25)", "clip:  wave 0.75"),
        (0, True, "actions  none   (not wave 0.75, rest 0.25)", "clip:  none"),
    ],
)
def test_what_is_said_of_the_clip_stands_before_what_is_not(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, num_said: int, several: bool, line: str, title: str
) -> None:
    prediction = a_prediction()
    said = prediction.top[:num_said]
    model = prediction.model.model_copy(update={"several": several})
    changed = prediction.model_copy(update={"action": next(iter(said), None), "actions": said, "model": model})
    show(changed, title="clip")
    assert line in capsys.readouterr().out.splitlines()
    draw(changed, tmp_path / "a.svg", title="clip")
    assert f"<!-- {title} -->" in (tmp_path / "a.svg").read_text()


def test_an_early_exit_is_told_with_its_time_and_score(capsys: pytest.CaptureFixture[str]) -> None:
    exited = EarlyExited(seconds=0.75, score=0.93)
    show(a_prediction().model_copy(update={"early_exit": exited}), title="clip")
    assert "stopped at 0.75 s: sure enough by then (0.93, calibrated)" in capsys.readouterr().out

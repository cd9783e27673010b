"""training.data.clips: three forms of a folder, and every mistake in it told at once with its place."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from training.data.clips import LabelledClip, LabelledSegment, read_clips, too_small_warnings
from training.data.targets import IGNORED, frame_targets
from vidseq.errors import DatasetError

Problems = tuple[str, ...]


def fill(folder: Path, files: Mapping[str, str | bytes]) -> Path:
    """Write these files, a clip being any file by that name."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def table(folder: Path, rows: str, *, header: str = "path,label", segments: str | None = None) -> Path:
    """A clips.csv with these rows over two clips that exist, a.mp4 and b.mp4."""
    fill(folder, {"a.mp4": "", "b.mp4": "", "clips.csv": f"{header}\n{rows}"})
    if segments is not None:
        fill(folder, {"segments.csv": f"path,start_seconds,end_seconds,label\n{segments}"})
    return folder


def problems(folder: Path, **options: str | bool | tuple[str, ...]) -> Problems:
    """The mistakes that reading the folder tells."""
    with pytest.raises(DatasetError) as caught:
        read_clips(folder, **options)  # type: ignore[arg-type]
    return caught.value.problems


def clip(label: str | None, *, name: str = "a", group: str | None = None) -> LabelledClip:
    return LabelledClip(Path(name), label, group, None)


def test_a_table_gives_clips_with_their_labels_groups_and_splits(tmp_path: Path) -> None:
    table(tmp_path, "a.mp4,jump,train,home\nb.mp4,wave,val,park\n", header="path,label,split,place")
    found = read_clips(tmp_path, group_by="place")
    assert found.clips == (
        LabelledClip(tmp_path / "a.mp4", "jump", "home", "train"),
        LabelledClip(tmp_path / "b.mp4", "wave", "park", "val"),
    )
    assert found.action_labels == ("jump", "wave") and found.frame_labels == () and found.warnings == ()


def test_a_cell_names_several_actions_none_or_says_nothing(tmp_path: Path) -> None:
    table(tmp_path, "a.mp4,wave| jump\nb.mp4,|\nc.mp4,\nd.mp4,jump", segments="c.mp4,0,1,up")
    found = read_clips(fill(tmp_path, {"c.mp4": "", "d.mp4": ""}), several=True)
    assert [clip.actions for clip in found.clips] == [("jump", "wave"), (), None, ("jump",)]
    assert [clip.label for clip in found.clips] == ["jump|wave", "|", None, "jump"], "equal sets are equal text"
    assert found.action_labels == ("jump", "wave")


@pytest.mark.parametrize(
    ("cell", "sentence"),
    [
        ("jump|jump", "label 'jump|jump' names one twice"),
        ("jump||wave", "label is ''; a name of printable characters is needed"),
        ("jump|fly", "label 'fly' is unknown; known are jump, wave"),
    ],
)
def test_a_wrong_name_among_several_is_told(tmp_path: Path, cell: str, sentence: str) -> None:
    (problem,) = problems(table(tmp_path, f"a.mp4,{cell}"), several=True, known_action_labels=("jump", "wave"))
    assert problem == f"clips.csv:2: {sentence}"


def test_a_folder_for_each_class_cannot_say_several(tmp_path: Path) -> None:
    (problem,) = problems(fill(tmp_path, {"jump/a.mp4": ""}), several=True)
    assert problem.endswith("several actions a clip need a clips.csv with labels such as a|b")


def test_a_parted_cell_is_one_label_where_a_clip_has_one_and_warned_of(tmp_path: Path) -> None:
    found = read_clips(table(tmp_path, "a.mp4,wave|jump\nb.mp4,jump"))
    assert found.clips[0].actions == ("wave|jump",) and found.action_labels == ("jump", "wave|jump")
    assert found.warnings == ("'wave|jump' is taken as one label; where | parts several, train with --several",)


def test_a_name_with_slashes_is_kept_as_it_was_given(tmp_path: Path) -> None:
    found = read_clips(table(tmp_path, "a.mp4,sport/tennis/serve\nb.mp4,sport/tennis", segments="a.mp4,0,1,ball/up"))
    assert found.action_labels == ("sport/tennis", "sport/tennis/serve") and found.frame_labels == ("ball/up",)
    assert [clip.actions for clip in found.clips] == [("sport/tennis/serve",), ("sport/tennis",)]


def test_segments_are_put_in_order(tmp_path: Path) -> None:
    table(tmp_path, "a.mp4,jump\nb.mp4,", segments="a.mp4,1,2.5,up\na.mp4,0,1,down\nb.mp4,0.5,1,up\n")
    found = read_clips(tmp_path)
    assert found.clips[0].segments == (LabelledSegment(0, 1, "down"), LabelledSegment(1, 2.5, "up"))
    assert found.clips[1].label is None
    assert found.frame_labels == ("down", "up")


def test_a_folder_for_each_class_labels_videos_and_folders_of_pictures(tmp_path: Path) -> None:
    fill(tmp_path, {"wave/b.avi": "", "jump/a.MP4": "", "jump/frames/001.jpg": "", ".git/x/y.mp4": ""})
    found = read_clips(tmp_path)
    assert [(str(clip.path.relative_to(tmp_path)), clip.label, clip.split) for clip in found.clips] == [
        ("jump/a.MP4", "jump", None),
        ("jump/frames", "jump", None),
        ("wave/b.avi", "wave", None),
    ]


def test_folders_named_after_splits_are_splits(tmp_path: Path) -> None:
    fill(tmp_path, {"train/jump/a.mp4": "", "valid/jump/b.mp4": "", "test/wave/c.mp4": "", "notes/x.txt": ""})
    found = read_clips(tmp_path)
    assert {(clip.path.name, clip.label, clip.split) for clip in found.clips} == {
        ("a.mp4", "jump", "train"),
        ("b.mp4", "jump", "val"),
        ("c.mp4", "wave", "test"),
    }
    assert found.warnings == ("notes: skipped, because it is not a split",)


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    fill(tmp_path, {"train/a.mp4": "", "bus/b.mp4": ""})
    assert read_clips(tmp_path).action_labels == ("bus", "train")


def test_segments_may_stand_beside_class_folders(tmp_path: Path) -> None:
    fill(tmp_path, {"jump/a.mp4": "", "segments.csv": "path,start_seconds,end_seconds,label\njump/a.mp4,0,1,up\n"})
    assert read_clips(tmp_path).clips[0].segments == (LabelledSegment(0, 1, "up"),)


def test_all_mistakes_are_told_together_each_with_its_line(tmp_path: Path) -> None:
    table(
        tmp_path,
        "a.mp4,jump\ngone.mp4,wave\n./a.mp4,wave\nb.mp4,\n",
        segments="a.mp4,2,1,up\na.mp4,zero,1,up\na.mp4,0,1,\ngone.mp4,0,1,up\nc.mp4,0,1,up\n",
    )
    assert problems(tmp_path) == (
        "clips.csv:3: there is no clip 'gone.mp4'",
        "clips.csv:4: the same clip as clips.csv:2",
        "segments.csv:2: the segment ends at 1 s, not after its start, 2 s",
        "segments.csv:3: start_seconds 'zero' is not a number of seconds from 0 on",
        "segments.csv:4: label is ''; a name of printable characters is needed",
        "segments.csv:6: 'c.mp4' is not one of the clips",
    )


@pytest.mark.parametrize("seconds", ["-1", "nan", "inf", "", "1e999", "1s"])
def test_what_is_no_number_of_seconds_is_refused(tmp_path: Path, seconds: str) -> None:
    table(tmp_path, "a.mp4,jump", segments=f"a.mp4,0,{seconds},up")
    assert problems(tmp_path) == (f"segments.csv:2: end_seconds {seconds!r} is not a number of seconds from 0 on",)


def test_overlapping_segments_are_refused_even_inside_one_another(tmp_path: Path) -> None:
    table(tmp_path, "a.mp4,jump\nb.mp4,jump", segments="a.mp4,0,9,up\na.mp4,1,2,down\na.mp4,3,4,up\nb.mp4,1,2,up\n")
    assert problems(tmp_path) == (
        "segments.csv:3: overlaps the segment of segments.csv:2",
        "segments.csv:4: overlaps the segment of segments.csv:2",
    )


@pytest.mark.parametrize("path", ["../secret.mp4", "/etc/passwd", "link.mp4", "sub/../../secret.mp4", ".", "a\0.mp4"])
def test_a_path_that_leaves_the_folder_is_refused(tmp_path: Path, path: str) -> None:
    fill(tmp_path, {"secret.mp4": "", "clips/sub/x.mp4": ""})
    folder = table(tmp_path / "clips", f"{path},jump")
    (folder / "link.mp4").symlink_to(tmp_path / "secret.mp4")
    (problem,) = problems(folder)
    assert problem.startswith(f"clips.csv:2: path {path!r}")


def test_a_class_folder_that_leads_elsewhere_is_refused(tmp_path: Path) -> None:
    fill(tmp_path, {"elsewhere/a.mp4": "", "clips/wave/b.mp4": ""})
    (tmp_path / "clips" / "jump").symlink_to(tmp_path / "elsewhere")
    assert "jump/a.mp4: path 'jump/a.mp4' does not lead into the folder" in problems(tmp_path / "clips")


def test_a_link_within_the_folder_is_the_clip_it_leads_to(tmp_path: Path) -> None:
    table(tmp_path, "a.mp4,jump\nlink.mp4,wave")
    (tmp_path / "link.mp4").symlink_to("a.mp4")
    assert problems(tmp_path) == ("clips.csv:3: the same clip as clips.csv:2",)


def test_a_pipe_is_not_a_clip(tmp_path: Path) -> None:
    table(tmp_path, "pipe.mp4,jump")
    os.mkfifo(tmp_path / "pipe.mp4")
    assert problems(tmp_path) == ("clips.csv:2: 'pipe.mp4' is neither a file nor a folder of pictures",)


def test_a_folder_without_pictures_is_not_a_clip(tmp_path: Path) -> None:
    fill(tmp_path, {"jump/more/a.mp4": "", "jump/b.mp4": ""})
    assert problems(tmp_path) == ("jump/more: 'jump/more' is a folder without pictures",)


def test_a_name_longer_than_the_file_system_allows_is_one_problem(tmp_path: Path) -> None:
    (problem,) = problems(table(tmp_path, f"{'a' * 300}.mp4,jump"))
    assert "cannot be read" in problem


def test_a_byte_order_mark_quotes_and_blank_lines_are_no_mistakes(tmp_path: Path) -> None:
    content = '\ufeffpath, label\r\n\r\n"a, first.mp4",two words \r\n'
    fill(tmp_path, {"a, first.mp4": "", "clips.csv": content})
    (found,) = read_clips(tmp_path).clips
    assert (found.path.name, found.label) == ("a, first.mp4", "two words")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "clips.csv: empty; a header with path, label and a row are needed"),
        (b"path,label\n", "clips.csv: empty; a header with path, label and a row are needed"),
        (b"path;label\na.mp4;jump\n", "clips.csv:1: no column 'path'; the columns are ['path;label']"),
        (b"path,label,label\na.mp4,x,y\n", "clips.csv:1: a column is named twice; the columns are "),
        (b"path,label\na.mp4\n", "clips.csv:2: 1 cells, but the header has 2"),
        (b"path,label\na.mp4,jump,x\n", "clips.csv:2: 3 cells, but the header has 2"),
        (b"path,label\na.mp4,caf\xe9\n", "clips.csv: not UTF-8 text: byte 0xe9 in line 2"),
        (b'path,label\na.mp4,"jump\n', "clips.csv:2: not CSV: "),
        (b"path,label\na.mp4,ju\x1b[31mmp\n", "clips.csv:2: label is 'ju\\x1b[31mmp'; a name of printable"),
    ],
)
def test_what_is_not_a_table_is_one_sentence(tmp_path: Path, content: bytes, problem: str) -> None:
    fill(tmp_path, {"a.mp4": "", "clips.csv": content})
    (found,) = problems(tmp_path)
    assert found.startswith(problem)


def test_the_group_column_must_be_there_and_filled(tmp_path: Path) -> None:
    table(tmp_path, "a.mp4,jump,home\nb.mp4,jump,", header="path,label,place")
    assert problems(tmp_path, group_by="person") == (
        "clips.csv:1: no column 'person'; the columns are ['path', 'label', 'place']",
    )
    assert problems(tmp_path, group_by="place") == (
        "clips.csv:3: place is ''; a name of printable characters is needed",
    )


def test_grouping_needs_a_table(tmp_path: Path) -> None:
    fill(tmp_path, {"jump/a.mp4": ""})
    (problem,) = problems(tmp_path, group_by="person")
    assert "grouping by 'person' needs a clips.csv" in problem


def test_a_split_is_known_and_given_to_all_or_none(tmp_path: Path) -> None:
    table(tmp_path, "a.mp4,jump,train\nb.mp4,jump,", header="path,label,split")
    assert problems(tmp_path) == ("clips.csv:3: no split is given, but other clips have one",)
    table(tmp_path, "a.mp4,jump,trian", header="path,label,split")
    assert problems(tmp_path) == ("clips.csv:2: the split 'trian' is not one of train, val, valid, validation, test",)


def test_a_group_on_both_sides_of_a_given_split_is_warned_of(tmp_path: Path) -> None:
    table(tmp_path, "a.mp4,jump,train,home\nb.mp4,wave,val,home", header="path,label,split,place")
    (warning,) = read_clips(tmp_path, group_by="place").warnings
    assert warning == "group 'home' is on both sides of the given split: train, val"


def test_a_label_that_the_model_does_not_know_is_told_with_its_line(tmp_path: Path) -> None:
    table(tmp_path, "a.mp4,jump\nb.mp4,fly", segments="a.mp4,0,1,sideways")
    found = problems(tmp_path, known_action_labels=("jump", "wave"), known_frame_labels=("up", "down"))
    assert found == (
        "clips.csv:3: label 'fly' is unknown; known are jump, wave",
        "segments.csv:2: label 'sideways' is unknown; known are down, up",
    )


def test_a_clip_needs_a_label_or_a_segment(tmp_path: Path) -> None:
    table(tmp_path, "a.mp4,jump\nb.mp4,")
    assert problems(tmp_path) == ("clips.csv:3: the clip has neither a label nor a segment",)


def test_a_background_needs_segments(tmp_path: Path) -> None:
    (problem,) = problems(table(tmp_path, "a.mp4,jump"), background="rest")
    assert problem == "background 'rest': a background needs segments, and there are none (segments.csv)"


@pytest.mark.parametrize("files", [{}, {"a.mp4": ""}, {"jump/notes.txt": ""}, {"train/a.txt": ""}])
def test_a_folder_without_clips_is_a_problem(tmp_path: Path, files: dict[str, str]) -> None:
    fill(tmp_path, files)
    assert len(problems(tmp_path)) == 1
    assert "no such folder" in problems(tmp_path / "nowhere")[0]


def test_clips_without_segments_beside_marked_ones_are_warned_of(tmp_path: Path) -> None:
    found = read_clips(table(tmp_path, "a.mp4,jump\nb.mp4,jump", segments="a.mp4,0,1,up"))
    assert found.warnings == ("1 of 2 clips have no segments: their frames have no labels",)


def test_files_that_are_no_videos_are_skipped_aloud(tmp_path: Path) -> None:
    fill(tmp_path, {"jump/a.mp4": "", "jump/a.txt": "", "jump/b.flv": ""})
    assert read_clips(tmp_path).warnings == ("2 file(s) skipped, no videos by their names: jump/a.txt, jump/b.flv",)


def test_a_frame_at_a_boundary_belongs_to_the_segment_that_starts_there() -> None:
    marked = LabelledClip(Path("a"), None, None, None, (LabelledSegment(1, 2, "up"), LabelledSegment(2, 3, "down")))
    seconds_T = np.array([0.0, 0.999, 1.0, 1.999, 2.0, 2.999, 3.0])
    found = frame_targets(marked, seconds_T, ("down", "up"), None)
    assert found.dtype == np.int64
    assert found.tolist() == [IGNORED, IGNORED, 1, 1, 0, 0, IGNORED]


def test_time_outside_the_segments_is_background_if_there_is_one() -> None:
    marked = LabelledClip(Path("a"), None, None, None, (LabelledSegment(1, 2, "up"),))
    seconds_T = np.array([0.5, 1.5, 2.5])
    assert frame_targets(marked, seconds_T, ("rest", "up"), "rest").tolist() == [0, 1, 0]


def test_a_clip_that_nobody_marked_is_not_background() -> None:
    assert frame_targets(clip("jump"), np.array([0.5, 1.5]), ("rest", "up"), "rest").tolist() == [IGNORED, IGNORED]


def test_a_frame_label_that_the_model_does_not_know_is_no_target() -> None:
    marked = LabelledClip(Path("a"), None, None, None, (LabelledSegment(0, 1, "up"), LabelledSegment(1, 2, "down")))
    assert frame_targets(marked, np.array([0.5, 1.5]), ("down",), None).tolist() == [IGNORED, 0]
    assert frame_targets(marked, np.array([0.5, 1.5]), (), None).tolist() == [IGNORED, IGNORED]


def test_reading_a_table_and_measuring_need_no_torch() -> None:
    program = "import sys, training.data.clips, training.measure.metrics; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_a_class_too_small_for_the_folds_is_warned_of_by_groups_if_there_are_any() -> None:
    single = [clip("jump", name=name) for name in "abc"] + [clip("wave", name=name) for name in "de"]
    assert too_small_warnings(single, 3) == ["'wave' has only 2 clip(s): too few for 3 folds"]
    grouped = [clip("jump", group="home"), clip("jump", name="b", group="home"), clip("wave", group="park")]
    assert too_small_warnings(grouped, 2) == [
        "'jump' has only 1 group(s): too few for 2 folds",
        "'wave' has only 1 group(s): too few for 2 folds",
    ]


def test_one_label_for_all_is_warned_of() -> None:
    assert too_small_warnings([clip("jump", name="a"), clip("jump", name="b")], 2) == [
        "all clips have the label 'jump': there is nothing to tell apart"
    ]


def test_of_several_actions_each_counts_the_clips_that_show_it() -> None:
    clips = [LabelledClip(Path(str(n)), label, None, None, several=True) for n, label in enumerate(["a|b", "a", "|"])]
    assert too_small_warnings(clips, 2) == ["'b' has only 1 clip(s): too few for 2 folds"]


def test_the_real_folders_are_read_without_a_warning(shared_data: Path) -> None:
    fight = read_clips(shared_data / "fight", group_by="source")
    yoga = read_clips(shared_data / "yoga", group_by="subject", background="transition")
    assert (len(fight.clips), fight.action_labels, fight.frame_labels) == (209, ("fight", "no_fight"), ())
    assert (len(yoga.clips), len(yoga.action_labels), len(yoga.frame_labels)) == (74, 6, 7)
    assert fight.warnings == yoga.warnings == ()

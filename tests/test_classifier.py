"""The whole path: bytes in, a Prediction or a stream of moments out, or a typed error and no label."""

import io
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.open_files import descriptors, none_stays_open
from tests.predictions import assert_same
from tests.toy_models import ACTIONS, toy_checkpoint
from tests.toy_videos import write_clip, write_sound
from vidseq.checkpoint import Checkpoint, load_checkpoint
from vidseq.classifier import Classifier
from vidseq.config import Calibration, Limits, Sampling
from vidseq.early import EarlyExit
from vidseq.engine import Engine, direct
from vidseq.errors import (
    EmptyVideo,
    NothingSampled,
    NoVideoStream,
    OfflineOnly,
    OptionError,
    SourceNotFound,
    TooManyFrames,
    UnsupportedContainer,
    VideoError,
)
from vidseq.sampling import sample
from vidseq.schemas import Prediction
from vidseq.segments import Segmenter
from vidseq.video import Reader


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_checkpoint(tmp_path_factory.mktemp("models") / "toy")


@pytest.fixture(scope="module")
def classifier(model: Path) -> Classifier:
    return Classifier.load(model)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten seconds at ten frames a second: five chunks of sampled frames."""
    return write_clip(tmp_path_factory.mktemp("clips") / "clip.mp4", num_frames=100)


def test_the_answer_to_a_clip_is_the_last_moment_of_its_stream(classifier: Classifier, clip: Path) -> None:
    prediction, moments = classifier.classify(clip), list(classifier.stream(clip))
    assert [moment.seconds for moment in moments] == [frame.seconds for frame in prediction.frames]
    assert [moment.frame.label for moment in moments] == [frame.label for frame in prediction.frames]
    assert moments[-1].action.label == prediction.action.label
    assert moments[-1].action.score == pytest.approx(prediction.action.score, abs=1e-5)


@pytest.mark.parametrize("heads", [{"several": True}, {"unknown_below": 0.34}, {"unknown_below": 1.0}])
def test_what_is_said_of_actions_is_what_the_stream_says_last(
    tmp_path: Path, clip: Path, heads: dict[str, object]
) -> None:
    calibration = Calibration(elapsed_seconds=(0.0, 3.0), temperatures=(1.0, 0.5))
    classifier = Classifier.load(toy_checkpoint(tmp_path / "toy", calibration=calibration, **heads))
    prediction, (*_, last) = classifier.classify(clip), classifier.stream(clip)
    streamed = last.actions if "several" in heads else [last.action] if last.action else []
    assert [(said.label, pytest.approx(said.score, abs=1e-5)) for said in streamed] == [
        (said.label, said.score) for said in prediction.actions
    ]
    assert prediction.action == next(iter(prediction.actions), None)
    assert len(prediction.top) == len(ACTIONS) and prediction.model.several == ("several" in heads)


def test_names_with_slashes_come_back_as_they_were_given(tmp_path: Path, clip: Path) -> None:
    heads = {"action_labels": ("sport/tennis", "sport/tennis/serve"), "frame_labels": ("a/b", "a"), "background": "a"}
    prediction = Classifier.load(toy_checkpoint(tmp_path / "toy", **heads)).classify(clip)
    read = Prediction.model_validate_json(prediction.model_dump_json())
    assert {scored.label for scored in read.top} == set(heads["action_labels"])
    assert read.action.label in heads["action_labels"] and read.model.action_labels == heads["action_labels"]
    assert {frame.label for frame in read.frames} <= {"a/b", "a"}
    assert {segment.label for segment in read.segments} <= {"a/b"}


def test_a_real_clip_is_answered_as_it_is_streamed(classifier: Classifier, shared_data: Path) -> None:
    source = shared_data / "yoga" / "padmasana"
    real = sorted(source.glob("*.mp4"))[0]
    prediction, moments = classifier.classify(real), list(classifier.stream(real))
    assert len(moments) == prediction.sampled.num_frames > 16
    assert moments[-1].action.score == pytest.approx(prediction.action.score, abs=1e-5)


def test_a_path_its_bytes_and_an_open_file_are_one_video(classifier: Classifier, clip: Path) -> None:
    sources = (str(clip), clip.read_bytes(), io.BytesIO(clip.read_bytes()))
    assert_same([classifier.classify(source) for source in sources], [classifier.classify(clip)] * 3)


def test_a_prediction_says_what_was_sampled_of_what_and_by_which_model(classifier: Classifier, clip: Path) -> None:
    prediction = classifier.classify(clip)
    assert prediction.sampled.num_frames == len(prediction.frames) == 80
    assert prediction.sampled.frames_per_second == 8
    assert (prediction.video.frames_decoded, prediction.video.complete) == (100, True)
    assert (prediction.model.name, prediction.model.sha256) == ("toy", classifier.info.sha256)
    assert prediction.timings.total_ms >= prediction.timings.encode_ms > 0


def test_frames_are_labelled_from_the_start_up_to_but_without_the_end(classifier: Classifier, clip: Path) -> None:
    prediction = classifier.classify(clip, start_seconds=2.0, end_seconds=4.0)
    seconds = [frame.seconds for frame in prediction.frames]
    assert seconds[0] == 2.0 and seconds[-1] < 4.0
    assert len(seconds) == 16
    assert [m.seconds for m in classifier.stream(clip, start_seconds=2.0, end_seconds=4.0)] == seconds


def test_what_came_before_an_interval_is_not_remembered(classifier: Classifier, tmp_path: Path) -> None:
    """The same pictures alone, in a clip of their own, say the same."""
    whole = write_clip(tmp_path / "whole.mkv", num_frames=100, codec="mjpeg")
    alone = write_clip(tmp_path / "alone.mkv", num_frames=40, first_number=60, codec="mjpeg")
    of_interval, of_alone = classifier.classify(whole, start_seconds=6.0), classifier.classify(alone)
    scores = [[scored.score for scored in (*p.top, *p.frames)] for p in (of_interval, of_alone)]
    assert scores[0] == pytest.approx(scores[1], abs=1e-5)
    assert of_interval.frames[0].seconds == 6.0 and of_alone.frames[0].seconds == 0.0


@pytest.mark.parametrize("interval", [(3.0, 3.0), (4.0, 2.0), (-1.0, None), (float("nan"), None), (1e308, None)])
def test_an_interval_that_cannot_be_is_an_error_of_the_caller(
    classifier: Classifier, clip: Path, interval: tuple[float, float | None]
) -> None:
    start_seconds, end_seconds = interval
    with pytest.raises(OptionError, match="interval"):
        classifier.classify(clip, start_seconds=start_seconds, end_seconds=end_seconds)


def test_an_interval_beyond_the_end_gets_no_label(classifier: Classifier, clip: Path) -> None:
    with pytest.raises(NothingSampled, match="60"):
        classifier.classify(clip, start_seconds=60.0)


def test_as_many_actions_are_named_as_asked_for(classifier: Classifier, clip: Path) -> None:
    assert [len(classifier.classify(clip, top_k=top_k).top) for top_k in (1, 2, 5)] == [1, 2, len(ACTIONS)]


def test_the_segments_are_a_fold_of_the_frame_scores(model: Path, clip: Path) -> None:
    """The scores come from the model itself, in one piece; the automaton sees them frame by frame."""
    checkpoint = load_checkpoint(model)
    config = checkpoint.config
    with Reader(clip, picture=config.picture) as reader:
        (whole,) = sample(reader, config.sampling, chunk_frames=1000)
    with torch.no_grad():
        scores, _ = checkpoint.model(torch.from_numpy(whole.pixels_THWC))
    frames = zip(whole.seconds_T.tolist(), scores.frame_probabilities_BTL()[0].tolist(), strict=True)
    segmenter = Segmenter(config.heads.frame_labels, config.heads.background, config.segments)
    expected = segmenter.fold(frames, end_seconds=10.0)
    segments = Classifier.load(model).classify(clip).segments
    assert len(segments) > 1
    assert [(s.label, s.start_seconds, s.end_seconds) for s in segments] == [
        (s.label, s.start_seconds, s.end_seconds) for s in expected
    ]
    assert [s.score for s in segments] == pytest.approx([s.score for s in expected], abs=1e-5)


@pytest.mark.parametrize(("end_seconds", "latest_seconds"), [(None, 3.0), (2.0, 2.0)])
def test_a_low_rate_labels_nothing_after_the_video_or_the_interval(
    tmp_path: Path, end_seconds: float | None, latest_seconds: float
) -> None:
    sampling = Sampling(frames_per_second=0.1)
    model = toy_checkpoint(tmp_path / "slow", sampling=sampling, frame_labels=("a", "b"), background=None)
    clip = write_clip(tmp_path / "short.mp4", num_frames=30)
    (segment,) = Classifier.load(model).classify(clip, end_seconds=end_seconds).segments
    assert (segment.start_seconds, segment.end_seconds) == (0.0, pytest.approx(latest_seconds))


def test_a_bidirectional_model_classifies_a_clip_in_one_piece(tmp_path: Path, clip: Path) -> None:
    folder = toy_checkpoint(tmp_path / "both", cell="lstm", bidirectional=True)
    checkpoint, classifier = load_checkpoint(folder), Classifier.load(folder)
    with Reader(clip, picture=classifier.config.picture) as reader:
        (whole,) = sample(reader, classifier.config.sampling, chunk_frames=1000)
    with torch.no_grad():
        scores, _ = checkpoint.model(torch.from_numpy(whole.pixels_THWC))
    expected = scores.frame_probabilities_BTL()[0].max(dim=-1).values.tolist()
    assert [frame.score for frame in classifier.classify(clip).frames] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("options", [{"bidirectional": True}, {"sampling": Sampling(max_frames=8)}])
def test_a_model_that_needs_the_whole_video_refuses_to_stream(
    tmp_path: Path, clip: Path, options: dict[str, object]
) -> None:
    classifier = Classifier.load(toy_checkpoint(tmp_path / "offline", **options))
    with pytest.raises(OfflineOnly, match="use classify"):
        list(classifier.stream(clip))
    assert classifier.classify(clip).action is not None


def broken_files(folder: Path) -> dict[type[VideoError], Path]:
    """One file for each reason."""
    files = {EmptyVideo: folder / "empty.mp4", UnsupportedContainer: folder / "text.mp4"}
    files[EmptyVideo].touch()
    files[UnsupportedContainer].write_text("ffconcat version 1.0\nfile clip.mp4\n")
    return files | {NoVideoStream: write_sound(folder / "sound.mp4")}


@pytest.mark.parametrize("error", [EmptyVideo, UnsupportedContainer, NoVideoStream])
def test_a_video_that_cannot_be_read_gets_no_label(
    classifier: Classifier, tmp_path: Path, error: type[VideoError]
) -> None:
    file = broken_files(tmp_path)[error]
    with pytest.raises(error):
        classifier.classify(file)
    with pytest.raises(error):
        next(classifier.stream(file))


def test_a_file_that_is_not_there_is_named(classifier: Classifier, tmp_path: Path) -> None:
    with pytest.raises(SourceNotFound, match=r"gone\.mp4"):
        classifier.classify(tmp_path / "gone.mp4")


def test_a_limit_holds_for_the_clip_that_meets_it(model: Path, clip: Path) -> None:
    classifier = Classifier.load(model, limits=Limits(max_frames=50))
    with pytest.raises(TooManyFrames) as caught:
        classifier.classify(clip)
    assert (caught.value.value, caught.value.limit) == (51, 50)


def test_threads_may_share_a_classifier(classifier: Classifier, clip: Path, tmp_path: Path) -> None:
    clips = [clip, write_clip(tmp_path / "other.mp4", num_frames=37, first_number=500)] * 4
    alone = [classifier.classify(source) for source in clips]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(classifier.classify, clips))
    assert_same(together, alone)


def test_an_engine_gives_the_answers_that_the_callers_own_thread_gives(
    model: Path, classifier: Classifier, clip: Path
) -> None:
    checkpoint = load_checkpoint(model)
    with Engine(checkpoint.model) as engine, ThreadPoolExecutor(4) as pool:
        shared = Classifier(checkpoint, compute=engine.submit, limits=Limits())
        together = list(pool.map(shared.classify, [clip] * 4))
    assert_same(together, [classifier.classify(clip)] * 4)


def test_a_stream_that_is_dropped_leaves_no_open_file(classifier: Classifier, clip: Path) -> None:
    with none_stays_open() as before:
        stream = classifier.stream(clip)
        next(stream)
        assert descriptors() - before
        stream.close()


def test_an_error_leaves_no_open_file(classifier: Classifier, tmp_path: Path) -> None:
    files = list(broken_files(tmp_path).values())
    with none_stays_open():
        for file in files:
            with pytest.raises(VideoError):
                classifier.classify(file)


def test_a_name_can_be_given_to_a_model_that_is_loaded(model: Path, clip: Path) -> None:
    assert Classifier.load(model, name="champion").classify(clip).model.name == "champion"


# Lookahead ---------------------------------------------------------------------------------------------


def test_with_a_lookahead_every_frame_is_still_labelled_once_by_the_scores_of_a_later_one(
    model: Path, clip: Path, tmp_path: Path
) -> None:
    later = Classifier.load(toy_checkpoint(tmp_path / "later", lookahead_seconds=0.5))  # the same weights, 4 frames
    frames, at_once = later.classify(clip).frames, Classifier.load(model).classify(clip).frames
    assert [frame.seconds for frame in frames] == [frame.seconds for frame in at_once]
    expected = [frame.score for frame in (*at_once[4:], *at_once[-1:] * 4)]
    assert [frame.score for frame in frames] == pytest.approx(expected, abs=1e-5)
    told = list(later.stream(clip))
    assert [(moment.seconds, moment.frame.label) for moment in told] == [(f.seconds, f.label) for f in frames]


# Early exit --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def calibrated(model: Path) -> Checkpoint:
    """The toy, never sure in its first 3 seconds and always sure afterwards."""
    checkpoint = load_checkpoint(model)
    calibration = Calibration(elapsed_seconds=(0.0, 3.0), temperatures=(100.0, 1e-4))
    return replace(checkpoint, config=checkpoint.config.model_copy(update={"calibration": calibration}))


@pytest.fixture(scope="module")
def impatient(calibrated: Checkpoint) -> Classifier:
    return Classifier(calibrated, compute=direct(calibrated.model), limits=Limits())


def test_an_early_exit_answers_with_what_was_seen_until_then(impatient: Classifier, clip: Path) -> None:
    prediction = impatient.classify(clip, early_exit=EarlyExit(score=0.9, hold_seconds=1.0))
    assert prediction.early_exit.seconds == prediction.sampled.end_seconds == prediction.frames[-1].seconds == 4.0
    assert prediction.sampled.num_frames == len(prediction.frames) == 33
    until_then = impatient.classify(clip, end_seconds=4.125)
    assert_same([prediction.model_copy(update={"early_exit": None, "video": until_then.video})], [until_then])
    assert prediction.early_exit.score == prediction.action.score > 0.9


def test_an_early_exit_spares_the_decoding_of_the_rest_and_is_complete(impatient: Classifier, clip: Path) -> None:
    video = impatient.classify(clip, early_exit=EarlyExit(score=0.9, hold_seconds=1.0)).video
    assert 41 <= video.frames_decoded < 50  # of 100, ten a second: the exit's chunk of four sampled frames
    assert video.complete and video.warnings == ()


def test_where_no_score_stays_high_the_whole_clip_is_looked_at(impatient: Classifier, clip: Path) -> None:
    patient = EarlyExit(score=0.9, hold_seconds=60.0)
    assert_same([impatient.classify(clip, early_exit=patient)], [impatient.classify(clip)])


def test_a_calibration_changes_the_scores_of_actions_and_nothing_else(
    impatient: Classifier, classifier: Classifier, clip: Path
) -> None:
    calibrated, plain = impatient.classify(clip), classifier.classify(clip)
    assert calibrated.action.score > 0.9 > plain.action.score
    actions = ("action", "actions", "top")
    said = {name: getattr(plain, name) for name in actions}
    assert calibrated.action.label == plain.action.label
    assert_same([calibrated.model_copy(update=said)], [plain])


def test_time_elapses_from_the_first_frame_looked_at(impatient: Classifier, clip: Path) -> None:
    prediction = impatient.classify(clip, start_seconds=2.0, early_exit=EarlyExit(score=0.9, hold_seconds=0.5))
    assert prediction.early_exit.seconds == 5.5


def test_an_engine_exits_at_the_same_frame(calibrated: Checkpoint, impatient: Classifier, clip: Path) -> None:
    wish = EarlyExit(score=0.9, hold_seconds=1.0)
    with Engine(calibrated.model) as engine:
        shared = Classifier(calibrated, compute=engine.submit, limits=Limits())
        found, expected = shared.classify(clip, early_exit=wish), impatient.classify(clip, early_exit=wish)
    assert found.sampled == expected.sampled
    assert [frame.label for frame in found.frames] == [frame.label for frame in expected.frames]


def test_segments_of_an_early_exit_end_at_the_same_time_however_far_ahead_the_video_was_decoded(
    calibrated: Checkpoint, impatient: Classifier, clip: Path
) -> None:
    """The exit is the last frame of its chunk: only beside an Engine has more been decoded by then."""
    wish = EarlyExit(score=0.9, hold_seconds=1.375)
    with Engine(calibrated.model) as engine:
        found = Classifier(calibrated, compute=engine.submit, limits=Limits()).classify(clip, early_exit=wish)
    expected = impatient.classify(clip, early_exit=wish)
    assert expected.sampled.num_frames % 4 == 0 and expected.segments
    assert found.segments[-1].end_seconds == expected.segments[-1].end_seconds == expected.early_exit.seconds + 0.125


def test_an_early_exit_leaves_no_open_file(impatient: Classifier, clip: Path) -> None:
    with none_stays_open():
        impatient.classify(clip, early_exit=EarlyExit(score=0.9, hold_seconds=0.0))


def test_a_model_without_calibration_refuses_before_it_opens_the_clip(classifier: Classifier) -> None:
    with pytest.raises(OptionError, match="toy is not calibrated by elapsed time"):
        classifier.classify("absent.mp4", early_exit=EarlyExit(score=0.9))

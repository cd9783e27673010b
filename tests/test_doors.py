"""One answer through every door: pictures, bytes of a video in any container, lines, and pushes, on a real service.

The service asks for a key, which the SDK finds in the environment; whoever shows none finds every door closed.
"""

import contextlib
import os
import random
from collections.abc import Iterator
from pathlib import Path

import cv2
import httpx2
import pytest
from websockets.typing import Subprotocol

from serving.keys import create_key
from tests.conftest import SHARED_DATA
from tests.predictions import scores
from tests.running import Service, running_service
from tests.stream_server import talking
from tests.test_web import answer_on, connect, head
from tests.toy_models import toy_checkpoint
from tests.toy_streams import encoded, raw
from tests.toy_videos import recode, remux, write_clip
from vidseq.classifier import Classifier
from vidseq.client import Client
from vidseq.config import Calibration, Picture
from vidseq.errors import NotAuthorized
from vidseq.messages import FRAMES_TYPE, SUBPROTOCOL, Applied, Encoded, Final, Ready, pack_frames, read_service_message
from vidseq.sampling import sample
from vidseq.schemas import FrameLabel, Prediction
from vidseq.video import Reader, Verdict

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

CONTAINERS = {
    "matroska": ("clip.mkv", {}),
    "mpegts": ("clip.ts", {}),
    "fragmented": ("fragmented.mp4", {"movflags": "frag_keyframe+empty_moov+default_base_moof"}),
    "faststart": ("faststart.mp4", {"movflags": "faststart"}),
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    calibration = Calibration(elapsed_seconds=(0.0, 1.0), temperatures=(3.0, 0.3))
    folder = tmp_path_factory.mktemp("models") / "toy"
    return toy_checkpoint(folder, cell="lstm", readout="attention", calibration=calibration)


@pytest.fixture(scope="module")
def classifier(model: Path) -> Classifier:
    return Classifier.load(model)


@pytest.fixture(scope="module")
def service(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    file = tmp_path_factory.mktemp("keys") / "keys.db"
    key = create_key(file, name="tests", scopes=["classify", "stream"], lifetime_seconds=None)
    with pytest.MonkeyPatch.context() as patch, running_service(model, "--keys", str(file)) as service:
        patch.setenv("VIDSEQ_API_KEY", key)
        yield service


def own_key() -> dict[str, str]:
    return {"Authorization": f"Bearer {os.environ['VIDSEQ_API_KEY']}"}


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Twenty real clips where there are any, else five toys."""
    real = sorted(SHARED_DATA.glob("fight/*/*.mp4"))[5::10][:20]
    folder = tmp_path_factory.mktemp("clips")
    return real or [write_clip(folder / f"{number}.mp4", num_frames=20 + number) for number in range(5)]


def assert_says(found: Prediction, expected: Prediction) -> None:
    """The same frames and segments, with scores that differ by rounding alone."""
    assert [(frame.seconds, frame.label) for frame in found.frames] == [(f.seconds, f.label) for f in expected.frames]
    assert [(s.start_seconds, s.end_seconds, s.label) for s in found.segments] == [
        (s.start_seconds, s.end_seconds, s.label) for s in expected.segments
    ]
    assert scores(found) == pytest.approx(scores(expected), abs=1e-5)
    assert found.sampled == expected.sampled


def everything(clip: Path) -> list[tuple[float, cv2.typing.MatLike]]:
    """Every frame of a clip as it is decoded, in red, green, blue, with its time."""
    with Reader(clip, picture=Picture()) as reader:
        pictures = reader.pictures(lambda seconds: Verdict.TAKE)
        return [(seconds, cv2.cvtColor(pixels_HWC, cv2.COLOR_BGR2RGB)) for pixels_HWC, seconds in pictures]


def looked_at(clip: Path, classifier: Classifier) -> list[tuple[float, cv2.typing.MatLike]]:
    """Of these, the frames that are sampled, and the last two: where the stream ends."""
    with Reader(clip, picture=Picture(size=16)) as reader:
        sampled = {seconds for chunk in sample(reader, classifier.config.sampling) for seconds in chunk.seconds_T}
    frames = everything(clip)
    return [frame for index, frame in enumerate(frames) if frame[0] in sampled or index >= len(frames) - 2]


def pushed(url: str, frames: list[tuple[float, object]]) -> Prediction:
    with Client(url) as client, client.stream() as stream:
        for frame in frames:
            stream.push_many([frame])
        return stream.end()


def test_raw_pictures(service: Service, clips: list[Path], classifier: Classifier) -> None:
    for clip in clips:
        assert_says(pushed(service.url, everything(clip)), classifier.classify(clip))


@pytest.mark.parametrize("format", ["png", "webp"])
def test_pictures_without_loss(service: Service, clips: list[Path], classifier: Classifier, format: str) -> None:
    for clip in clips:
        frames = [
            (seconds, bytes(encoded(pixels_HWC, seconds, format=format).data))
            for seconds, pixels_HWC in looked_at(clip, classifier)
        ]
        found, expected = pushed(service.url, frames), classifier.classify(clip)
        assert [frame.seconds for frame in found.frames] == [frame.seconds for frame in expected.frames]
        assert [f.score for f in found.frames] == pytest.approx([f.score for f in expected.frames], abs=1e-5)
        assert found.action.score == pytest.approx(expected.action.score, abs=1e-5)
        # What was sent ends as the clip does, but its mean interval is longer: the last segment may end later.
        assert [(s.start_seconds, s.label) for s in found.segments] == [
            (s.start_seconds, s.label) for s in expected.segments
        ]
        assert [s.end_seconds for s in found.segments[:-1]] == [s.end_seconds for s in expected.segments[:-1]]


@pytest.mark.parametrize("container", CONTAINERS)
def test_bytes_of_a_video(
    service: Service, clips: list[Path], classifier: Classifier, container: str, tmp_path: Path
) -> None:
    name, muxing = CONTAINERS[container]
    for clip in clips:
        path = remux(clip, tmp_path / name, **muxing)
        with Client(service.url) as client:
            found = list(stream := client.classify_stream(path))
        assert_says(stream.prediction, classifier.classify(path))
        assert [moment.seconds for moment in found] == [frame.seconds for frame in stream.prediction.frames]


def test_bytes_of_an_avi(service: Service, clips: list[Path], classifier: Classifier, tmp_path: Path) -> None:
    for clip in clips:
        path = recode(clip, tmp_path / "clip.avi")
        with Client(service.url) as client:
            list(stream := client.classify_stream(path))
        assert_says(stream.prediction, classifier.classify(path))


@pytest.mark.parametrize("faststart", [False, True])
def test_an_index_at_the_end(
    service: Service, clips: list[Path], classifier: Classifier, tmp_path: Path, faststart: bool
) -> None:
    for clip in clips[:5]:
        path = remux(clip, tmp_path / "late.mp4")
        with Client(service.url) as client:
            events = list((stream := client.classify_stream(path, faststart=faststart)).events())
        assert_says(stream.prediction, classifier.classify(path))
        assert getattr(events[0], "kind", None) == (None if faststart else "index-at-end")


def test_lines(service: Service, clips: list[Path], classifier: Classifier) -> None:
    headers = own_key() | {"Accept": "application/x-ndjson", "Content-Type": "video/mp4"}
    for clip in clips:
        answer = httpx2.post(f"{service.url}/v1/classify", content=clip.read_bytes(), headers=headers, timeout=60)
        assert answer.headers["content-type"] == "application/x-ndjson"
        *parts, final = map(read_service_message, answer.text.splitlines())
        assert_says(whole(parts, final), classifier.classify(clip))


def test_pushes_of_random_sizes(service: Service, clips: list[Path], classifier: Classifier) -> None:
    chance = random.Random(0)
    for clip in clips:
        frames = [raw(pixels_HWC, seconds) for seconds, pixels_HWC in everything(clip)]
        assert_says(put(service.url, chunks(frames, chance)), classifier.classify(clip))


def chunks(frames: list[Encoded], chance: random.Random) -> Iterator[list[Encoded]]:
    """Of a size that fits into one push."""
    most = max(1, 6 * 2**20 // frames[0].header.bytes)
    while frames:
        size = chance.randint(1, most)
        yield frames[:size]
        frames = frames[size:]


def put(url: str, pushes: Iterator[list[Encoded]]) -> Prediction:
    with httpx2.Client(base_url=url, timeout=60, headers=own_key()) as http:
        ready = Ready.model_validate(http.post("/v1/sessions", json={}).raise_for_status().json())
        answers = []
        for sequence, frames in enumerate(pushes):
            place = f"/v1/sessions/{ready.session}/pushes/{sequence}"
            answer = http.put(place, content=pack_frames(frames), headers={"Content-Type": FRAMES_TYPE})
            answers.append(Applied.model_validate(answer.raise_for_status().json()))
        final = Final.model_validate(http.post(f"/v1/sessions/{ready.session}/end").raise_for_status().json())
    return whole(answers, final)


def whole(answers: list[Applied], final: Final) -> Prediction:
    """The Prediction with the frames and segments that were told on the way."""
    told = [*answers, final]
    frames = tuple(
        FrameLabel(seconds=moment.seconds, label=moment.frame.label, score=moment.frame.score)
        for message in told
        for moment in message.labels
    )
    segments = tuple(change.segment for message in told for change in message.segments if change.change == "closed")
    return final.prediction.model_copy(update={"frames": frames, "segments": segments})


# Closed doors


@pytest.mark.parametrize("key", ["vsk_" + "0" * 12 + "_" + "A" * 43, "s3cret"])
def test_a_key_that_is_not_good_opens_no_door(service: Service, clips: list[Path], key: str) -> None:
    with Client(service.url, key, max_retries=0) as client:
        for ask in (client.models, lambda: client.classify(clips[0]), client.stream().__enter__):
            with pytest.raises(NotAuthorized) as caught:
                ask()
            assert caught.value.status == 401 and caught.value.request_id
    assert key not in service.said()


def test_who_shows_no_key_is_refused_while_his_body_never_comes(service: Service) -> None:
    with contextlib.closing(connect(service.url)) as connection:
        connection.sendall(head("Content-Type: video/mp4\r\nContent-Length: 1000000"))
        status, problem = answer_on(connection)
    assert (status, problem["type"]) == (401, "key/missing")


def test_a_browsers_key_passes_as_a_subprotocol_and_only_the_other_is_answered(service: Service) -> None:
    offered = [Subprotocol(SUBPROTOCOL), Subprotocol(f"vidseq.bearer.{os.environ['VIDSEQ_API_KEY']}")]
    with talking(service.url, subprotocols=offered) as client:
        assert client.open(input="frames").session
        assert client.connection.subprotocol == SUBPROTOCOL


def test_no_key_is_in_what_the_service_says(service: Service) -> None:
    key = os.environ["VIDSEQ_API_KEY"]
    for place in (f"/v1/models?key={key}", f"/v1/{key}"):
        assert httpx2.get(service.url + place).json()["type"] == "key/misplaced"
    assert "for whoever shows a key of" in service.said()
    assert key[17:] not in service.said()

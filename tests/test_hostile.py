"""Files that mean harm: none opens a file or a socket, none gets a label that is made up, each ends in time and alone.

The corpus is asked about in a process that is traced with all that it starts, while an address that it names listens.
"""

import json
import socket
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest

from serving.labeller import Labeller
from tests.conftest import SHARED_DATA
from tests.hostile_files import (
    LABELLED,
    NEIGHBOUR_HEIGHT,
    NEIGHBOUR_WIDTH,
    NEIGHBOURS,
    Hostile,
    make_corpus,
    make_neighbours,
)
from tests.hostile_run import CAP_BYTES, LIMITS, SAMPLING, Answer, Run, read_run
from tests.stream_server import stream_app
from tests.test_cli import in_process, refused
from tests.test_web import problem_of
from tests.toy_models import toy_checkpoint
from tests.toy_videos import write_clip
from tests.traced import Process, need_strace, traced
from tests.web_server import running
from vidseq.sandbox.box import Sandbox
from vidseq.schemas import Prediction

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]
GRACE_SECONDS = 5.0  # of a machine that does other things, too: from a deadline to the answer
KINDS = ["texts", "names", "codecs", "forms", "no picture", "polyglots", "cut short", "encrypted", "boxes", "headers"]
KINDS += ["bombs"]
REAL = sorted(SHARED_DATA.glob("fight/*/*.mp4"))[:1]


@dataclass(frozen=True)
class Observed:
    """What came of the corpus, and what was seen meanwhile. `knocks`: who came to the address that it names."""

    corpus: list[Hostile]
    run: Run
    processes: list[Process]
    knocks: int

    def answers(self, kind: str | None = None) -> Iterator[tuple[Hostile, Answer]]:
        for each, answer in zip(self.corpus, self.run.answers, strict=True):
            if kind in (None, each.kind):
                yield each, answer

    @property
    def decoders(self) -> list[Process]:
        return [process for process in self.processes if process.confined]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_checkpoint(tmp_path_factory.mktemp("models") / "toy", sampling=SAMPLING)


@pytest.fixture(scope="module")
def observed(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Observed:
    strace, folder = need_strace(), tmp_path_factory.mktemp("hostile")
    with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
        port = tcp.getsockname()[1]
        udp.bind(("127.0.0.1", port))
        corpus = make_corpus(folder / "files", port=port, real=REAL[0] if REAL else None)
        (folder / "corpus").write_text(json.dumps([each.path for each in corpus]))
        told = [sys.executable, "-m", "tests.hostile_run", model, folder / "corpus", folder / "answers"]
        processes = traced(told, folder / "trace", strace=strace, cwd=ROOT)
        knocks = sum(map(_has_come, (tcp, udp)))
    return Observed(corpus, read_run(folder / "answers"), processes, knocks)


def _has_come(listener: socket.socket) -> bool:
    listener.setblocking(False)
    try:
        listener.accept() if listener.type == socket.SOCK_STREAM else listener.recv(1)
    except BlockingIOError:
        return False
    return True


# What comes of them


@pytest.mark.parametrize("kind", KINDS)
def test_each_file_ends_as_it_may(kind: str, observed: Observed) -> None:
    found = list(observed.answers(kind))
    assert len(found) >= 8
    wrong = {each.name: answer for each, answer in found if answer.outcome not in each.outcomes}
    assert wrong == {}


def test_no_kind_is_left_out(observed: Observed) -> None:
    assert {each.kind for each in observed.corpus} == set(KINDS)
    assert len(observed.corpus) > 60


def test_nothing_that_cannot_be_read_gets_a_label(observed: Observed) -> None:
    labelled = [each.name for each, answer in observed.answers() if answer.outcome == LABELLED and not each.readable]
    assert labelled == []


def test_every_refusal_is_a_sentence_and_none_of_them_a_crash(observed: Observed) -> None:
    refusals = [answer for _, answer in observed.answers() if answer.outcome != LABELLED]
    assert [answer for answer in refusals if answer.outcome == "video/decoder-crashed"] == []
    assert [answer.detail for answer in refusals if " " not in answer.detail or "Traceback" in answer.detail] == []


def test_a_label_of_a_file_that_was_cut_says_that_it_was(observed: Observed) -> None:
    """If pictures are missing, and not only what stands behind them. MPEG-TS declares no time that could be missed."""
    cut = [(each, answer) for each, answer in observed.answers("cut short") if answer.outcome == LABELLED]
    most = {_clip(each): max(a.frames_decoded for other, a in cut if _clip(other) == _clip(each)) for each, _ in cut}
    short = [(each, answer) for each, answer in cut if answer.frames_decoded < 0.94 * most[_clip(each)]]
    assert len(short) > 10
    silent = [each.name for each, answer in short if answer.complete or not answer.warnings]
    assert [name for name in silent if not name.endswith(".ts")] == []


def _clip(each: Hostile) -> str:
    return each.name.partition("-")[2]


# What they reached


def test_no_decoder_opens_a_file(observed: Observed) -> None:
    assert len(observed.decoders) > 60
    assert [opened for process in observed.decoders for opened in process.opened()] == []


def test_no_decoder_has_a_socket_and_nothing_at_all_one_that_leaves_the_machine(observed: Observed) -> None:
    assert [found for process in observed.decoders for found in process.sockets()] == []
    assert [found for process in observed.processes for found in process.sockets("AF_INET")] == []
    assert observed.knocks == 0


def test_what_is_opened_of_the_corpus_is_each_file_once_and_no_neighbour(observed: Observed) -> None:
    folder = str(Path(observed.corpus[0].path or "").parents[1])
    opened = [path for process in observed.processes for path in process.opened() if path.startswith(folder)]
    assert [path for path in opened if NEIGHBOURS in path and Path(path).name != NEIGHBOURS] == []
    assert len(opened) == len(set(opened)) > 60


def test_no_picture_of_a_neighbour_is_shown(observed: Observed) -> None:
    shown = [each.name for each, answer in observed.answers() if NEIGHBOUR_WIDTH in (answer.width, answer.height)]
    assert shown == []


# What they cost


def test_the_longest_takes_no_longer_than_the_deadline(observed: Observed) -> None:
    longest, name = max((answer.seconds, each.name) for each, answer in observed.answers())
    assert longest < LIMITS.max_decode_seconds + GRACE_SECONDS, name


def test_no_process_ever_had_more_memory_than_it_may(observed: Observed) -> None:
    assert 100 << 20 < observed.run.peak_bytes <= CAP_BYTES


def test_nothing_is_left_of_them(observed: Observed) -> None:
    assert (observed.run.descriptors_left, observed.run.children_left) == (0, 0)


# Through other doors


@pytest.mark.parametrize("kind", ["bombs", "encrypted", "boxes", "no picture"])
def test_the_service_answers_each_with_a_label_or_a_problem(
    kind: str, model: Path, sandbox: Sandbox, observed: Observed, tmp_path: Path
) -> None:
    labeller = Labeller(model, name=None, device="cpu", limits=LIMITS, sandbox=sandbox)
    assert labeller.live is not None
    files = [each for each in observed.corpus if each.kind == kind][::3]
    with running(stream_app(labeller.live, tmp_path, classify=labeller.classify)) as url:
        found = {each: _posted(url, Path(each.path or "").read_bytes()) for each in files}
    labeller.close()
    assert {each.name: outcome for each, outcome in found.items() if outcome not in each.outcomes} == {}


def _posted(url: str, video: bytes) -> str:
    raw = {"Content-Type": "application/octet-stream"}
    answer = httpx2.post(f"{url}/v1/classify", content=video, headers=raw, timeout=60)
    if answer.status_code == 200:
        assert Prediction.model_validate_json(answer.content).video.frames_decoded > 0
        return LABELLED
    problem = problem_of(answer)
    assert problem.status in (400, 413, 422) and " " in problem.detail
    return problem.type


@pytest.mark.parametrize("target", ["secret.txt", "frame%d.jpg", ".", "link.mp4"])
def test_predict_follows_a_link_to_a_video_and_to_nothing_else(target: str, model: Path, tmp_path: Path) -> None:
    make_neighbours(tmp_path)
    link = tmp_path / NEIGHBOURS / "link.mp4"
    link.symlink_to(target)
    assert "a secret of this machine" not in refused("predict", model, link)


def test_a_link_to_a_video_shows_that_video(model: Path, tmp_path: Path) -> None:
    (tmp_path / "link.mp4").symlink_to(write_clip(tmp_path / "clip.mp4", height=NEIGHBOUR_HEIGHT))
    answer = in_process("predict", model, tmp_path / "link.mp4", "--json").stdout
    assert Prediction.model_validate_json(answer).video.height == NEIGHBOUR_HEIGHT

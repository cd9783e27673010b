"""A model is replaced while the service answers: no request fails, every answer is of one model, and right."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.predictions import assert_same
from tests.running import Service, name_of, running_service, status
from tests.test_two_services import streamed, whole_stream
from tests.toy_models import toy_checkpoint, toy_config, toy_model
from tests.toy_streams import assert_same as assert_same_labels
from tests.toy_videos import write_clip
from tests.web_server import wait_until
from vidseq.checkpoint import save_checkpoint
from vidseq.classifier import Classifier
from vidseq.client import Client
from vidseq.errors import StatusError
from vidseq.schemas import Prediction

pytestmark = pytest.mark.cluster

THREADS = 4
PATIENCE_SECONDS = 240.0  # 2 on an idle machine


@dataclass
class House:
    """A service whose model is a link, the models to which it may lead, and a clip with what each says of it."""

    service: Service
    link: Path
    models: dict[str, Path]
    clip: Path
    expected: dict[str, Prediction]

    def answers_with(self, name: str) -> None:
        """Unless it does so already."""
        if self.answer().model != self.expected[name].model:
            assert "answers now" in self.roll_out(name)

    def roll_out(self, name: str) -> str:
        """Switch the link and send SIGHUP; the line that the service says of it."""
        fresh = self.link.with_name("fresh")
        fresh.symlink_to(self.models[name])
        fresh.replace(self.link)
        num_said = len(outcomes(self.service))
        self.service.process.send_signal(signal.SIGHUP)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while len(said := outcomes(self.service)) == num_said:
            assert self.service.process.poll() is None and time.monotonic() < deadline, self.service.said()
            time.sleep(0.1)
        return said[-1]

    def answer(self) -> Prediction:
        with Client(self.service.url) as client:
            return client.classify(self.clip)


def outcomes(service: Service) -> list[str]:
    """What the service said of rollouts, in its own words: Ray repeats those of its replicas."""
    lines = service.said().splitlines()
    return [line for line in lines if line.startswith(("the model in ", "vidseq: the model in "))]


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("rollout")
    models = {
        "a": toy_checkpoint(folder / "a" / "toy"),
        "newer": toy_checkpoint(folder / "newer" / "toy", version="2"),  # the same weights
        "b": toy_checkpoint(folder / "b" / "toy", seed=1),
        "flipped": flipped(toy_checkpoint(folder / "flipped" / "toy", seed=2)),
        "absurd": absurd(folder / "absurd" / "toy"),
    }
    clip = write_clip(folder / "clip.mp4", num_frames=40)
    expected = {name: Classifier.load(models[name]).classify(clip) for name in ("a", "b", "newer")}
    link = folder / "current"
    link.symlink_to(models["a"])
    with running_service(link) as service:
        yield House(service, link, models, clip, expected)


@pytest.fixture(autouse=True)
def from_model_a(house: House) -> None:
    house.answers_with("a")


def flipped(model: Path) -> Path:
    """One bit of its weights is another."""
    path = model / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    return model


def absurd(folder: Path) -> Path:
    """Whole, and its scores are no numbers."""
    config = toy_config(cell="none")
    model = toy_model(config)
    next(model.sequence.parameters()).data.fill_(float("nan"))
    save_checkpoint(folder, config=config, model=model, baseline=model.sequence, documents={}, version="1")
    return folder


@contextmanager
def under_load(house: House) -> Iterator[list[Prediction]]:
    """Threads that ask without a pause, and without a second try; what they were answered."""
    answers: list[Prediction] = []
    over = threading.Event()

    def ask() -> None:
        with Client(house.service.url, max_retries=0) as client:
            while not over.is_set():
                answers.append(client.classify(house.clip))

    with ThreadPoolExecutor(THREADS) as pool:
        asking = [pool.submit(ask) for _ in range(THREADS)]
        try:
            yield answers
        finally:
            over.set()
            for asked in asking:
                asked.result()  # why somebody was not answered says more than that he was not


def test_under_load_models_are_replaced_without_a_failed_request_and_every_answer_is_of_one(house: House) -> None:
    with under_load(house) as answers:
        for name in ("b", "a", "b", "a"):
            num_before = len(answers)
            assert "answers now" in house.roll_out(name)
            assert house.answer().model == house.expected[name].model
            wait_until(lambda num=num_before: len(answers) > num, seconds=PATIENCE_SECONDS / 4)
    of = {house.expected[name].model.sha256: house.expected[name] for name in ("a", "b")}
    assert {answer.model.sha256 for answer in answers} == set(of)
    assert_same(answers, [of[answer.model.sha256] for answer in answers])


@pytest.mark.parametrize(("damaged", "words"), [("flipped", "SHA-256"), ("absurd", "no numbers")])
def test_a_damaged_model_is_refused_with_the_reason_and_the_good_one_goes_on(
    house: House, damaged: str, words: str
) -> None:
    with under_load(house) as answers:
        said = house.roll_out(damaged)
    assert status(house.service.port, "/readyz") == 200
    assert "is refused, and the one before goes on" in said and words in said
    assert_same([*answers, house.answer()], [house.expected["a"]] * (len(answers) + 1))


def test_a_replica_that_dies_comes_back_with_the_model_that_was_rolled_out_last(house: House) -> None:
    house.roll_out("b")
    os.kill(replica(house.service), signal.SIGKILL)
    with Client(house.service.url, max_retries=30) as client:
        assert client.classify(house.clip).model == house.expected["b"].model


def replica(service: Service) -> int:
    (pid,) = replicas(service)
    return pid


def replicas(service: Service) -> list[int]:
    return [pid for pid in service.tree() if command(pid).startswith(b"ray::ServeReplica:service")]


def command(pid: int) -> bytes:
    """Nothing of one that has ended."""
    with suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


def test_a_live_stream_goes_on_with_a_model_of_the_same_trunk(house: House) -> None:
    with Client(house.service.url) as client, client.stream() as stream:
        labels = streamed(stream, range(12))
        assert "answers now" in house.roll_out("newer")
        labels += streamed(stream, range(12, 24))
        prediction = stream.end()
        labels += list(stream)
    assert prediction.model.version == "2"
    assert_same_labels(labels, whole_stream(house.models["a"], 24))


def test_a_live_stream_hears_that_its_model_was_replaced_by_one_of_another_trunk(house: House) -> None:
    with Client(house.service.url) as client, client.stream() as stream:
        streamed(stream, range(4))
        assert "answers now" in house.roll_out("b")
        with pytest.raises(StatusError) as refused:
            streamed(stream, range(4, 8))
    assert (refused.value.status, refused.value.type) == (409, "session/model-replaced")


# Models beside the first


@pytest.fixture(scope="module")
def several(house: House, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A service of its own, with a folder of further models that is empty."""
    folder = tmp_path_factory.mktemp("several")
    models = {
        "lstm": toy_checkpoint(folder / "made/lstm", cell="lstm"),
        "elman": toy_checkpoint(folder / "made/elman", cell="elman"),
        "stranger": toy_checkpoint(folder / "made/stranger", seed=1),
    }
    expected = {name: Classifier.load(model).classify(house.clip) for name, model in models.items()}
    (folder / "also").mkdir()
    with running_service(house.models["a"], "--also", str(folder / "also"), "--replicas", "2") as service:
        yield House(service, folder / "also", models, house.clip, expected | {"toy": house.expected["a"]})


def changed(several: House, *names: str) -> list[str]:
    """Let these models, and no others, stand beside the first; the lines that the service says of it."""
    for link in several.link.iterdir():
        if link.name not in names:
            link.unlink()
    for name in names:
        if not (several.link / name).is_symlink():
            (several.link / name).symlink_to(several.models[name])
    return told_after_hangup(several.service)


def told_after_hangup(service: Service) -> list[str]:
    num_said = len(outcomes(service))
    service.process.send_signal(signal.SIGHUP)
    wait_until(lambda: len(outcomes(service)) > num_said, seconds=PATIENCE_SECONDS)
    time.sleep(0.5)  # there may be more steps than one
    return outcomes(service)[num_said:]


def await_both(several: House) -> None:
    """Both replicas answer: with the store, which is opened last, and for long enough that they are asked.

    Who was starting while models were changed has looked again by then.
    """
    wait_until(lambda: sum(map(has_store, replicas(several.service))) == 2, seconds=PATIENCE_SECONDS)
    time.sleep(5.0)


def has_store(pid: int) -> bool:
    with suppress(OSError):  # it has ended, or closes a file meanwhile
        return any(os.readlink(file).endswith("sessions.db") for file in Path(f"/proc/{pid}/fd").iterdir())
    return False


def test_models_come_and_go_beside_the_first_without_a_failed_request(several: House) -> None:
    changed(several)  # whatever another test has left there
    with under_load(several) as answers, Client(several.service.url, max_retries=0) as client:
        (added,) = changed(several, "lstm")
        assert added.endswith("/lstm answers, too")
        assert_same(
            [*client.classify_each(several.clip, ["lstm", "toy"])], [several.expected[name] for name in ("lstm", "toy")]
        )
        (added,) = changed(several, "lstm", "elman")
        assert added.endswith("/elman answers, too")
        assert [one.model.name for one in client.classify_each(several.clip)] == ["toy", "lstm", "elman"]
        (removed,) = changed(several, "elman")
        assert removed.endswith("/lstm answers no more")
        assert [info.name for info in client.models()] == ["toy", "elman"]
    assert_same(answers, [several.expected["toy"]] * len(answers))


def test_a_model_of_another_backbone_is_refused_with_the_reason_and_the_others_go_on(several: House) -> None:
    assert "refused" not in "".join(changed(several, "elman"))
    (said,) = changed(several, "elman", "stranger")
    assert "is refused, and those that answer go on without it: stranger cannot share a look with toy" in said
    with Client(several.service.url) as client:
        assert [info.name for info in client.models()] == ["toy", "elman"]
    assert "answers no more" not in "".join(changed(several, "elman"))


def test_a_replica_that_dies_comes_back_with_the_models_that_came_later(several: House) -> None:
    changed(several, "lstm")
    for pid in replicas(several.service):
        os.kill(pid, signal.SIGKILL)
    with Client(several.service.url, max_retries=30) as client:
        answers = [client.classify(several.clip, model="lstm") for _ in range(6)]
    assert_same(answers, [several.expected["lstm"]] * 6)
    await_both(several)


def test_a_replica_that_was_starting_meanwhile_comes_to_the_models_of_the_others(several: House) -> None:
    changed(several, "lstm")
    for pid in replicas(several.service):
        os.kill(pid, signal.SIGKILL)
    with Client(several.service.url, max_retries=30) as client:
        client.classify(several.clip)  # one is there again; the other one has read which models it has to load
        assert "refused" not in "".join(changed(several, "elman"))
        await_both(several)
        wait_until(
            lambda: all([info.name for info in client.models()] == ["toy", "elman"] for _ in range(20)),
            seconds=PATIENCE_SECONDS,
        )


def test_a_replica_that_does_not_move_makes_the_service_unready(house: House) -> None:
    pid = replica(house.service)
    os.kill(pid, signal.SIGSTOP)
    try:
        assert status(house.service.port, "/readyz") == 503
    finally:
        os.kill(pid, signal.SIGCONT)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while status(house.service.port, "/readyz") != 200:
        assert time.monotonic() < deadline and name_of(pid)
        time.sleep(0.2)

"""serving.boxes: a service is ready while the canary clip is decoded, and says why it is not."""

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from serving.boxes import Boxes, confinement_of
from tests.require import missing
from tests.test_sandbox import await_true, is_gone
from vidseq.config import Limits
from vidseq.errors import OptionError
from vidseq.sandbox.box import Sandbox

TOO_TIGHT = Limits(max_decoder_bytes=1 << 20)


@pytest.fixture
def boxes() -> Iterator[Boxes]:
    with Sandbox() as sandbox:
        yield Boxes(sandbox, Limits())


def test_while_the_canary_clip_is_decoded_nothing_is_in_the_way(boxes: Boxes) -> None:
    assert boxes.why_not() is None


def test_a_limit_that_changes_is_tried_at_once_and_so_is_one_that_changes_back(boxes: Boxes) -> None:
    assert boxes.why_not() is None
    boxes.limits = TOO_TIGHT
    assert "videos cannot be decoded here" in (boxes.why_not() or "")
    assert "videos cannot be decoded here" in (boxes.why_not() or "")
    boxes.limits = Limits()
    assert boxes.why_not() is None


def test_one_canary_clip_speaks_for_those_after_it(boxes: Boxes) -> None:
    boxes.why_not()
    pid = boxes.sandbox.server_pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    await_true(lambda: is_gone(pid))
    assert boxes.why_not() is None
    assert boxes.sandbox.server_pid == pid  # nobody has noticed yet, and nobody has asked


def test_after_a_while_it_is_decoded_again(boxes: Boxes) -> None:
    often = Boxes(boxes.sandbox, Limits(), proof_seconds=0)
    often.why_not()
    pid = often.sandbox.server_pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    await_true(lambda: is_gone(pid))
    assert often.why_not() is None
    assert often.sandbox.server_pid != pid


def test_while_one_tries_the_others_are_told_what_was_found_last(boxes: Boxes) -> None:
    """To fail may take half a minute: whoever asks meanwhile must not wait in a row."""
    often = Boxes(boxes.sandbox, Limits(), proof_seconds=0)
    assert often.why_not() is None
    pid = often.sandbox.server_pid
    assert pid is not None
    with ThreadPoolExecutor(9) as pool:
        os.kill(pid, signal.SIGSTOP)
        try:
            asked = [pool.submit(often.why_not) for _ in range(9)]
            await_true(lambda: sum(each.done() for each in asked) == 8)
        finally:
            os.kill(pid, signal.SIGCONT)
    assert [each.result() for each in asked] == [None] * 9


def test_a_service_does_not_start_where_no_clip_can_be_decoded(boxes: Boxes) -> None:
    with pytest.raises(OptionError, match="videos cannot be decoded here"):
        confinement_of(boxes.sandbox, TOO_TIGHT, required=False)


def test_who_requires_the_sandbox_starts_where_the_kernel_offers_all_of_it(boxes: Boxes) -> None:
    if lacking := boxes.sandbox.prove(Limits()).missing:
        missing("sandbox", f"this kernel does not offer {lacking}")
    assert not confinement_of(boxes.sandbox, Limits(), required=True).missing


def test_the_check_of_a_machine_says_what_confines_its_decoders(tmp_path: Path) -> None:
    from serving.check import check
    from tests.toy_models import toy_checkpoint

    words = check(toy_checkpoint(tmp_path / "toy"), device="cpu")
    assert words.startswith("each video is decoded in a process of its own")

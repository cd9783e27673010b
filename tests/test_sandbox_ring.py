"""vidseq.sandbox.ring: shared pictures whose memory nobody can take away."""

import mmap
import os

import numpy as np
import pytest

from vidseq.sandbox.ring import Ring


def test_what_the_other_side_paints_is_copied_and_no_longer_changes() -> None:
    ring = Ring(300)
    memory = mmap.mmap(ring.fd, 600)
    memory[300:600] = bytes(range(150)) * 2
    picture_HWC = ring.picture(1, height=10, width=10)
    memory[300:600] = bytes(300)
    memory.close()
    ring.close()
    assert picture_HWC.shape == (10, 10, 3)
    assert picture_HWC.reshape(-1).tolist() == list(range(150)) * 2
    assert np.shares_memory(picture_HWC, picture_HWC.copy()) is False


@pytest.mark.parametrize("num_bytes", [0, 599, 601, 1 << 20])
def test_the_other_side_cannot_resize_it(num_bytes: int) -> None:
    ring = Ring(300)
    with pytest.raises(PermissionError):
        os.ftruncate(ring.fd, num_bytes)
    ring.close()


def test_no_page_is_taken_before_it_is_used() -> None:
    ring = Ring(1 << 30)
    assert os.fstat(ring.fd).st_blocks == 0
    ring.close()

"""Small pictures for a report: a few frames of what the model looked at, in order, as text."""

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.test_pictures import write_pictures
from tests.toy_models import toy_config
from tests.toy_videos import read, write_clip
from training.report.thumbnails import MAX_PICTURES, SIZE, thumbnails
from vidseq.errors import SourceNotFound

PREFIX = "data:image/jpeg;base64,"


def numbers(addresses: tuple[str, ...]) -> list[int]:
    """What is painted in the pictures, each a JPEG of the right size."""
    pictures = [Image.open(io.BytesIO(base64.b64decode(address.removeprefix(PREFIX)))) for address in addresses]
    assert {(picture.format, picture.size) for picture in pictures} == {("JPEG", (SIZE, SIZE))}
    return [read(np.asarray(picture)) for picture in pictures]


def test_frames_of_the_whole_clip_are_shown_in_order(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", num_frames=100)
    found = numbers(thumbnails(clip, config=toy_config()))
    assert MAX_PICTURES / 2 <= len(found) <= MAX_PICTURES
    assert found == sorted(set(found))
    assert found[0] == 0 and found[-1] > 75


def test_a_folder_of_pictures_is_shown_too(tmp_path: Path) -> None:
    assert numbers(thumbnails(write_pictures(tmp_path / "clip", num_frames=3), config=toy_config()))


def test_a_clip_that_has_gone_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceNotFound, match="gone"):
        thumbnails(tmp_path / "gone.mp4", config=toy_config())

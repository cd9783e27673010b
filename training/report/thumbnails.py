"""A few small pictures of a clip, as text that stands in a page. Knows nothing of labels."""

import base64
import io
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from PIL import Image

from vidseq.config import Limits, ModelConfig, Picture
from vidseq.picture_folder import PictureReader
from vidseq.sampling import FrameSource, sample
from vidseq.video import Reader

MAX_PICTURES = 8
SIZE = 72


def thumbnails(path: Path, *, config: ModelConfig) -> tuple[str, ...]:
    """Evenly spread frames of what the model looked at, cut as it sees them; each a `data:` address of a JPEG.

    Raises:
        VideoError: the clip cannot be decoded.
    """
    sampling = config.sampling.model_copy(update={"max_frames": MAX_PICTURES})
    with _open(path, Picture(size=SIZE, fit=config.picture.fit)) as reader:
        return tuple(_jpeg(pixels_HWC) for clip in sample(reader, sampling) for pixels_HWC in clip.pixels_THWC)


def _open(path: Path, picture: Picture) -> AbstractContextManager[FrameSource]:
    if path.is_dir():
        return nullcontext(PictureReader(path, picture=picture, limits=Limits()))
    return Reader(path, picture=picture)


def _jpeg(pixels_HWC: Image.SupportsArrayInterface) -> str:
    buffer = io.BytesIO()
    Image.fromarray(pixels_HWC).save(buffer, "JPEG", quality=70)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"

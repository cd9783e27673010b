"""From images to pushes: what a client sends of a stream of pictures. Knows no image library and no array library."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import ValidationError

from vidseq.config import first_mistake
from vidseq.errors import OptionError
from vidseq.messages import MAX_PUSH_FRAMES, Encoded, FrameHeader, pack_frames

if TYPE_CHECKING:
    from typing_extensions import Buffer


@dataclass(frozen=True)
class Push:
    """Some frames, packed, with the time of the first."""

    data: bytes
    first_seconds: float
    num_frames: int


def pushes(frames: "Iterable[tuple[float, Buffer]]", *, max_bytes: int) -> Iterator[Push]:
    """(seconds, image), in as few pushes as hold them; one is made when the frames for it have come.

    Raises:
        OptionError: not an image, a time that is none, or more than `max_bytes` in one image.
    """
    parts, first_seconds, num_bytes = list[bytes](), 0.0, 0
    for seconds, image in frames:
        part = pack_frames([_encoded(seconds, image)])
        if len(part) > max_bytes:
            raise OptionError(f"the image has {len(part):,} bytes; the service takes at most {max_bytes:,} in one push")
        if len(parts) == MAX_PUSH_FRAMES or num_bytes + len(part) > max_bytes:
            yield Push(b"".join(parts), first_seconds, len(parts))
            parts, num_bytes = [], 0
        first_seconds = first_seconds if parts else float(seconds)
        parts.append(part)
        num_bytes += len(part)
    if parts:
        yield Push(b"".join(parts), first_seconds, len(parts))


def _encoded(seconds: float, image: "Buffer") -> Encoded:
    try:
        view = memoryview(image)
    except TypeError:
        raise OptionError(f"{_WANTED}, not {type(image).__name__}") from None
    fields: dict[str, object] = {"seconds": seconds, "bytes": view.nbytes}
    if view.ndim == 3 and view.format == "B" and view.shape is not None and view.shape[2] == 3:
        fields |= {"format": "rgb", "height": view.shape[0], "width": view.shape[1]}
    elif view.ndim == 1 and view.itemsize == 1:
        fields |= {"format": _format(bytes(view[:12]))}
    else:
        raise OptionError(f"{_WANTED}, not {list(view.shape or ())} of format {view.format!r}")
    try:
        header = FrameHeader.model_validate(fields)
    except ValidationError as error:
        raise OptionError("the image cannot be sent: " + ": ".join(filter(None, first_mistake(error)))) from None
    return Encoded(header, view.cast("B") if view.c_contiguous else view.tobytes())


_WANTED = "an image is the bytes of a JPEG, PNG or WebP, or an array of uint8 [H, W, 3], red first"


def _format(start: bytes) -> str:
    if start.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if start.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        return "webp"
    raise OptionError(f"{_WANTED}; these bytes begin with {start!r}")

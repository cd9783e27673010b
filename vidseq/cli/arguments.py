"""What several commands take, and how it is checked. Knows none of them."""

import re
from pathlib import Path
from typing import Annotated, Literal

import typer

from vidseq.config import Limits
from vidseq.errors import OptionError

OnBad = Literal["stop", "skip"]

ModelFolder = Annotated[Path, typer.Argument(help="A model's folder, as `vidseq train` wrote it.", metavar="MODEL")]
ClipsFolder = Annotated[
    Path,
    typer.Argument(
        help="A folder per class, or a folder with clips.csv (path,label,...) and perhaps segments.csv "
        "(path,start_seconds,end_seconds,label).",
        metavar="CLIPS",
    ),
]
FiguresFile = Annotated[Path | None, typer.Option(help="Also write the figures to this file.")]
DrawnTogether = Annotated[
    str | None, typer.Option(help="A column of clips.csv: for intervals, clips that share it count as one witness.")
]
Bad = Annotated[OnBad, typer.Option("--on-bad", help="What to do with a clip that cannot be decoded.")]
MinShareSeen = Annotated[
    float,
    typer.Option(
        min=0,
        max=1,
        help="Refuse a video, in place of labelling it, of whose declared time less than this share can be decoded, "
        "because it is cut short or damaged; 0 labels whatever can be seen.",
    ),
]
RequireSignature = Annotated[
    list[Path] | None,
    typer.Option(
        "--require-signature",
        metavar="PUBLIC.pem",
        help="Use the model only if this key has signed it (`vidseq sign`); given several times, one of these keys.",
    ),
]
MIN_SHARE_SEEN = Limits().min_share_seen
_UNIT_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
Device = Annotated[str, typer.Option(help="Where the model runs: cpu, cuda, cuda:1 ...")]


def check_writable(json: Path | None) -> None:
    """Asked before the work whose figures go there.

    Raises:
        OptionError: no file can be written at `json`.
    """
    if json is not None and (json.is_dir() or not json.parent.is_dir()):
        raise OptionError(f"--json: no file can be written at {json}")


def torch_device(name: str) -> str:
    """The name of a device, once a tensor has been there and back.

    Raises:
        OptionError: torch knows no such device, or cannot reach it.
    """
    import torch

    try:
        torch.zeros(1, device=name).cpu()
    except (RuntimeError, AssertionError) as error:  # torch without CUDA asserts
        raise OptionError(f"--device: {name!r} cannot be used: {str(error).splitlines()[0]}") from None
    return name


def seconds_of(text: str, *, option: str) -> float:
    """A length of time as people type it.

    Raises:
        OptionError: it is none.
    """
    match = re.fullmatch(r"([0-9]{1,9})([smhdw])", text)
    if match is None:
        raise OptionError(f"{option}: {text!r} is no time; 45s, 30m, 12h, 30d and 8w are")
    return float(match[1]) * _UNIT_SECONDS[match[2]]

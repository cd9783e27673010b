"""The door's hinge: runs the command line, and turns what went wrong into one sentence. Knows none of the commands."""

import sys
from collections.abc import Sequence

from vidseq.errors import VidseqError
from vidseq.memory import keep_freed_memory

_EXTRAS = {
    "typer": "core",
    "rich": "core",
    "torch": "core",
    "cv2": "core",
    "numpy": "core",
    "matplotlib": "core",
    "sklearn": "train",
    "tensorboard": "train",
    "ray": "serve",
    "fastapi": "serve",
    "pyarrow": "serve",
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Exit codes: 0 done, 1 done but some clips failed (`--strict`), 2 a mistake in what was asked, 130 interrupted."""
    keep_freed_memory()
    try:
        from vidseq.cli import app  # the SDK alone has no typer: that is a sentence too, so inside the try

        app(args=arguments)
    except VidseqError as error:
        _leave(str(error), code=2)
    except ModuleNotFoundError as error:
        extra = _EXTRAS.get((error.name or "").partition(".")[0])
        if extra is None:
            raise
        _leave(f"this needs {error.name}: pip install 'vidseq[{extra}]'", code=2)
    except OSError as error:  # a file that cannot be read, a disk that is full
        _leave(f"{error.strerror or error}" + (f": {error.filename}" if error.filename else ""), code=2)
    except KeyboardInterrupt:
        _leave("interrupted", code=130)


def _leave(sentence: str, *, code: int) -> None:
    print(f"vidseq: {sentence}", file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()

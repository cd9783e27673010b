"""`python -m serving.check MODEL DEVICE`: can this machine use this model? Knows nothing of serving it.

A process of its own, because it brings torch, which `vidseq serve` itself never needs. Exits with 0, or says what is
wrong in one sentence.
"""

import sys
from pathlib import Path

from vidseq.checkpoint import load_checkpoint
from vidseq.errors import CheckpointError, InputError, OptionError

EXIT_STATUSES: dict[type[InputError], int] = {CheckpointError: 2, OptionError: 3}


def check(folder: Path, *, device: str) -> None:
    """Read the whole model, as a replica will.

    Raises:
        CheckpointError: not a model that can be used.
        OptionError: not a device that can be used.
    """
    model = load_checkpoint(folder).model
    try:
        model.to(device)
    except (RuntimeError, AssertionError) as error:  # torch without CUDA asserts
        raise OptionError(f"the device {device!r} cannot be used: {str(error).splitlines()[0]}") from None


if __name__ == "__main__":
    try:
        check(Path(sys.argv[1]), device=sys.argv[2])
    except (CheckpointError, OptionError) as error:
        sys.stderr.write(str(error))
        sys.exit(EXIT_STATUSES[type(error)])

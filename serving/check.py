"""`python -m serving.check MODEL DEVICE [required]`: can this machine use this model? Knows nothing of serving it.

A process of its own, because it brings torch, which `vidseq serve` itself never needs. Says what confines the decoders
of videos here and exits with 0, or says what is wrong in one sentence. `required`: all of the sandbox must be offered.
"""

import sys
from pathlib import Path

from serving.boxes import confinement_of
from vidseq.checkpoint import load_checkpoint
from vidseq.config import Limits
from vidseq.errors import CheckpointError, InputError, OptionError
from vidseq.sandbox.box import Sandbox

EXIT_STATUSES: dict[type[InputError], int] = {CheckpointError: 2, OptionError: 3}


def check(folder: Path, *, device: str, require_sandbox: bool = False) -> str:
    """Read the whole model and decode a clip, as a replica will; what confines it, in words.

    Raises:
        CheckpointError: not a model that can be used.
        OptionError: not a device that can be used, or no sandbox, or not all of one that is required.
    """
    model = load_checkpoint(folder).model
    try:
        model.to(device)
    except (RuntimeError, AssertionError) as error:  # torch without CUDA asserts
        raise OptionError(f"the device {device!r} cannot be used: {str(error).splitlines()[0]}") from None
    with Sandbox() as sandbox:
        return confinement_of(sandbox, Limits(), required=require_sandbox).in_words()


if __name__ == "__main__":
    try:
        print(check(Path(sys.argv[1]), device=sys.argv[2], require_sandbox="required" in sys.argv[3:]))
    except (CheckpointError, OptionError) as error:
        sys.stderr.write(str(error))
        sys.exit(EXIT_STATUSES[type(error)])

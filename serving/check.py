"""`python -m serving.check MODEL ...`: can this machine use this model, and others beside it?

A process of its own, because it brings torch, which `vidseq serve` itself never needs. Says what confines the decoders
of videos here, and what else is worth saying, and exits with 0; or says what is wrong in one sentence.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from serving.boxes import confinement_of
from serving.looks import refuse_other_looks, refuse_same_names
from vidseq.checkpoint import load_checkpoint
from vidseq.config import Limits
from vidseq.engine import direct
from vidseq.errors import CheckpointError, InputError, OptionError
from vidseq.rehearsal import rehearse
from vidseq.sandbox.box import Sandbox

EXIT_STATUSES: dict[type[InputError], int] = {CheckpointError: 2, OptionError: 3}


def check(
    folder: Path,
    *,
    device: str,
    also: Sequence[Path] = (),
    require_sandbox: bool = False,
    trusted_keys: Sequence[Path] | None = None,
) -> str:
    """Read whole models, decode a clip and label one with each, as a replica will; what confines it and what is odd.

    Raises:
        CheckpointError: not a model that can be used, not one that is trusted, or one that does not answer a known clip
            as it did when it was made.
        OptionError: not a device that can be used, or no sandbox, or not all of one that is required; or one of `also`
            cannot share a look at videos with the first.
    """
    checkpoints = [load_checkpoint(each, trusted_keys=trusted_keys) for each in (folder, *also)]
    refuse_other_looks(checkpoints)
    refuse_same_names(checkpoint.info for checkpoint in checkpoints)
    try:
        computes = [direct(checkpoint.model.to(device)) for checkpoint in checkpoints]
    except (RuntimeError, AssertionError) as error:  # torch without CUDA asserts
        raise OptionError(f"the device {device!r} cannot be used: {str(error).splitlines()[0]}") from None
    with Sandbox() as sandbox:
        confinement = confinement_of(sandbox, Limits(), required=require_sandbox)
        odd = [
            rehearse(checkpoint, compute, device=device, sandbox=sandbox)
            for checkpoint, compute in zip(checkpoints, computes, strict=True)
        ]
        return "\n".join(filter(None, (confinement.in_words(), *odd)))


def _main() -> None:
    parser = argparse.ArgumentParser("python -m serving.check", description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--also", type=Path, action="append", default=[])
    parser.add_argument("--device", required=True)
    parser.add_argument("--require-sandbox", action="store_true")
    parser.add_argument("--require-signature", type=Path, action="append", metavar="PUBLIC.pem")
    asked = parser.parse_args()
    try:
        print(
            check(
                asked.model,
                device=asked.device,
                also=asked.also,
                require_sandbox=asked.require_sandbox,
                trusted_keys=asked.require_signature,
            )
        )
    except (CheckpointError, OptionError) as error:
        sys.stderr.write(str(error))
        sys.exit(EXIT_STATUSES[type(error)])


if __name__ == "__main__":
    _main()

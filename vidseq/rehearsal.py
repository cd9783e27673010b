"""A model answers the known clip, all the way from its bytes to scores, and is held to its golden answer.

golden.mp4 -> Reader -> sample -> compute -> Labelling -> Golden, beside the one that was kept. Knows nothing of HTTP.
"""

import platform
from importlib.metadata import PackageNotFoundError, version

import numpy as np

from vidseq import __version__, golden
from vidseq.checkpoint import Checkpoint
from vidseq.config import Limits, ModelConfig
from vidseq.engine import Compute, Work
from vidseq.labelling import Labelling
from vidseq.sampling import sample
from vidseq.sandbox.box import Sandbox
from vidseq.video import Reader

_WHOLE_FRAMES = 4096  # the clip has fewer: it is one piece, also for a model that reads it from both ends
_PARTS = ("torch", "torchvision", "timm", "opencv-python")


def answer(config: ModelConfig, compute: Compute, *, device: str, sandbox: Sandbox | None = None) -> golden.Golden:
    """What this model says of the known clip, here and now.

    Raises:
        VideoError, SandboxError: the clip cannot be decoded here.
    """
    labelling = Labelling.of(config)
    with Reader(golden.CLIP, picture=config.picture, limits=Limits(), sandbox=sandbox) as reader:
        (clip,) = sample(reader, config.sampling, chunk_frames=_WHOLE_FRAMES)
    scores = compute(Work(clip.pixels_THWC, None)).result().scores
    seconds_T = clip.seconds_T.tolist()
    action_TA = labelling.action_scores(labelling.start(), seconds_T, scores)
    frame_BTL = scores.frame_probabilities_BTL()
    frame_TL = None if frame_BTL is None else frame_BTL[0].numpy()
    made_by = _versions() | {"device": device, "precision": config.encoder.precision}
    found = golden.Golden.of(seconds_T, action_TA, frame_TL, made_by=made_by)
    finite = all(np.isfinite(table).all() for table in (found.actions, found.frames))
    assert finite, f"the model answers the known clip with scores that are no numbers: {found}"
    return found


def rehearse(checkpoint: Checkpoint, compute: Compute, *, device: str, sandbox: Sandbox | None = None) -> str | None:
    """Hold a model to its golden answer; where it has none, what is to be said about that.

    Raises:
        CheckpointError: it answers otherwise.
        VideoError, SandboxError: as `answer`.
    """
    config, kept = checkpoint.config, checkpoint.golden
    found = answer(config, compute, device=device, sandbox=sandbox)
    if kept is None or kept.clip_sha256 != found.clip_sha256:
        why = "has no golden answer" if kept is None else "has a golden answer to another clip"
        return f"the model {checkpoint.info.name} {why}: nobody can tell whether it computes here what it was made for"
    kept.refuse_other(found, config.heads, tolerance=golden.tolerance_of(device, config.encoder))
    return None


def _versions() -> dict[str, str]:
    found = {"vidseq": __version__, "machine": platform.machine()}
    for part in _PARTS:
        try:
            found[part] = version(part)
        except PackageNotFoundError:  # another build of the same thing, such as opencv-python-headless
            continue
    return found

"""`vidseq score`: many clips in, a row with labels for each out. Knows nothing of how it is done."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from serving.batch.outputs import Output
from serving.batch.run import Batch, Summary
from serving.batch.score_job import ScoreJob
from serving.looks import refuse_other_looks
from vidseq.checkpoint import load_checkpoint
from vidseq.config import Limits
from vidseq.errors import OptionError
from vidseq.features.store import FeatureStore


def score(
    model: Path,
    inputs: Sequence[str],
    out: str | Path,
    *,
    also: Sequence[Path] = (),
    resume: bool = False,
    partition_by: str | None = None,
    features: Path | None = None,
    num_workers: int | None = None,
    top_k: int = 5,
    frames: bool = False,
    limits: Limits = Limits(),
    trusted_keys: Sequence[Path] | None = None,
    console: Console | None = None,
) -> Summary:
    """Score clips with the model in a folder, or with several, and write a row for each (serving.batch.rows) to `out`.

    Args:
        inputs: files, folders (the videos in them), globs and manifests, here or as URLs (serving.batch.inputs).
        out: a file, .parquet or .jsonl, or a folder of Parquet (serving.batch.outputs); an older one is replaced.
        also: other models that look at videos as the first does (backbone, pictures, rate): each clip is decoded and
            encoded once for all of them, and has a row for each, the first model's first.
        resume: go on with the job that was begun with this `out`; without one it is begun.
        partition_by: a column of a manifest, by whose values the folder `out` is divided.
        features: a store (vidseq.features.store): clips whose features are there are not decoded, others are added.
        num_workers: processes; None for one a GPU, or one a CPU as far as memory goes.
        top_k: how many actions each row names.
        frames: with the label of every sampled frame.
        limits: what a clip may cost, and how much of it must be seen for a label.
        trusted_keys: files of public keys, one of which must have signed the model; None asks for no signature.
        console: where progress and the closing count are shown; None for standard error.

    Raises:
        OptionError: as `Batch.run`; `out`, `features` or a number is wrong; before any work.
        CheckpointError: a model is not one, or not one that is trusted; before any work.
        NotReconciled: a row is missing, or there twice.
    """
    if top_k < 1:
        raise OptionError(f"top_k is {top_k}; at least 1 is needed")
    output = Output.of(str(out), partition_by=partition_by)
    if features is not None:
        FeatureStore(features)
    models = [model, *also]
    checkpoints = [load_checkpoint(each, trusted_keys=trusted_keys) for each in models]
    refuse_other_looks(checkpoints)
    job = ScoreJob(
        models=tuple(each.resolve() for each in models),
        trusted_keys=None if trusted_keys is None else tuple(key.resolve() for key in trusted_keys),
        infos=tuple(checkpoint.info for checkpoint in checkpoints),
        top_k=top_k,
        frames=frames,
        limits=limits,
        features=None if features is None else features.resolve(),
    )
    batch = Batch(inputs, output, output.place, resume=resume, num_workers=num_workers)
    return batch.run(job, title="scoring", console=console or Console(stderr=True))

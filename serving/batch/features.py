"""`vidseq features`: many clips in, what a backbone says of them kept in a store. Knows nothing of how it is done."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from serving.batch.feature_job import FeatureJob
from serving.batch.outputs import Output
from serving.batch.places import Place
from serving.batch.run import Batch, Summary
from vidseq.checkpoint import load_checkpoint
from vidseq.config import Limits
from vidseq.errors import OptionError
from vidseq.features.extract import Look
from vidseq.features.hashes import joint_hash
from vidseq.features.store import FeatureStore, Kind


def make_features(
    of: Path | Look,
    inputs: Sequence[str],
    store: Path,
    *,
    table: str | None = None,
    kind: Kind | None = None,
    resume: bool = False,
    num_workers: int | None = None,
    limits: Limits = Limits(),
    trusted_keys: Sequence[Path] | None = None,
    console: Console | None = None,
) -> Summary:
    """Decode and encode every clip that is not yet in the store, and say what came of each.

    Args:
        of: the folder of a model, whose backbone looks; or a look, with default weights, of models to be trained.
        inputs: as of `score`.
        store: a folder (vidseq.features.store), which all workers must reach.
        table: also write a row for each clip, failures included, to a file as `out` of `score`.
        kind: as of FeatureStore.

    The rest as `score`, which says what is raised, too.
    """
    FeatureStore(store, kind=kind)
    if isinstance(of, Look) and of.encoder.weights == "none":
        raise OptionError("without weights every worker would draw other ones, and no feature would be found again")
    keys = None if trusted_keys is None else tuple(key.resolve() for key in trusted_keys)
    job = FeatureJob(
        look=Look.of(load_checkpoint(of, trusted_keys=keys).config) if isinstance(of, Path) else of,
        model=of.resolve() if isinstance(of, Path) else None,
        trusted_keys=keys,
        store=store.resolve(),
        kind=kind,
        limits=limits,
    )
    output = None if table is None else Output.of(table)
    beside = output.place if output is not None else _beside(store, inputs, job)
    batch = Batch(inputs, output, beside, resume=resume, num_workers=num_workers)
    return batch.run(job, title="encoding", console=console or Console(stderr=True))


def _beside(store: Path, inputs: Sequence[str], job: FeatureJob) -> Place:
    """Where a job without a table lies until it is done: several may fill one store."""
    name = joint_hash(*inputs, str(job.model), repr(job.look))[:8]
    return Place.of(f"{store.resolve()}.{name}")

"""`vidseq jobs`: hand videos over to a service, go away, and ask later on."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vidseq.cli.app import Commands, app
from vidseq.errors import OptionError

if TYPE_CHECKING:
    from vidseq.client import Client, Job
    from vidseq.client.job_calls import Asked, Webhook

jobs = typer.Typer(
    cls=Commands, no_args_is_help=True, help="Hand videos over to a service, to be labelled when it is their turn."
)
app.add_typer(jobs, name="jobs")

Url = Annotated[
    str | None,
    typer.Option(envvar="VIDSEQ_BASE_URL", help="The service; http://127.0.0.1:8000. Its key: VIDSEQ_API_KEY."),
]
JobId = Annotated[str, typer.Argument(metavar="JOB", help="Its id, as `vidseq jobs list` tells it.")]
AsJson = Annotated[
    bool, typer.Option("--json", help="Print JSON and nothing else: the job, and a line for each of its videos.")
]


@jobs.command()
def submit(
    clips: Annotated[list[Path], typer.Argument(help="Video files.")],
    model: Annotated[list[str] | None, typer.Option(help="A model of the service. May be repeated.")] = None,
    top_k: Annotated[int, typer.Option(min=1, help="How many actions to name.")] = 5,
    start: Annotated[float | None, typer.Option(metavar="SECONDS", help="Where to begin in each video.")] = None,
    end: Annotated[float | None, typer.Option(metavar="SECONDS", help="Where to end in each video.")] = None,
    keep: Annotated[float | None, typer.Option(metavar="DAYS", help="Delete the job after so long. Else: 7.")] = None,
    webhook: Annotated[str | None, typer.Option(metavar="URL", help="Told when all have ended.")] = None,
    secret: Annotated[
        str | None,
        typer.Option(envvar="VIDSEQ_WEBHOOK_SECRET", metavar="whsec_...", help="Signs what the webhook is told."),
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Wait for the results; its id goes to stderr at once.")] = False,
    as_json: AsJson = False,
    url: Url = None,
) -> None:
    """Upload clips and make a job of them; prints its id. Each result carries the name of its file."""
    from vidseq.client.job_calls import Video

    missing = next((clip for clip in clips if not clip.is_file()), None)
    if missing is not None:
        raise OptionError(f"there is no file {missing}")
    names = [_ascii(str(clip)) for clip in clips]
    twice = len(set(names)) < len(names)
    videos = [Video(clip, custom_id=None if twice else name) for clip, name in zip(clips, names, strict=True)]
    asked: Asked = {"top_k": top_k, "models": model or ()}
    if start is not None:
        asked["start_seconds"] = start
    if end is not None:
        asked["end_seconds"] = end
    if keep is not None:
        asked["time_to_live_seconds"] = keep * 24 * 3600
    if webhook is not None:
        asked["webhook"] = _webhook(webhook, secret)
    with _client(url) as client:
        with _bar("uploading", len(clips), shown=not as_json) as advance:
            job = client.jobs.create(videos, on_uploaded=lambda done, _: advance(done), **asked)
        if wait:
            print(job.id, file=sys.stderr)  # known to whoever is interrupted, or whose wait fails
            _wait(client, job, as_json=as_json)
        else:
            print(job.model_dump_json() if as_json else job.id)


@jobs.command("list")
def list_jobs(
    limit: Annotated[int, typer.Option(min=1, help="How many, the newest first.")] = 20,
    as_json: AsJson = False,
    url: Url = None,
) -> None:
    """List the jobs of a key."""
    from rich.console import Console
    from rich.table import Table

    with _client(url) as client:
        found = list(islice(client.jobs.list(), limit))
    if as_json:
        print("[" + ",\n ".join(job.model_dump_json() for job in found) + "]")
        return
    if not found:
        typer.echo("there are no jobs")
        return
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column("job", min_width=len(found[0].id))  # whole on a narrow terminal too: it is what is typed next
    for heading in ("state", "videos", "ended", "failed", "made (UTC)"):
        table.add_column(heading, justify="right" if heading in ("videos", "ended", "failed") else "left")
    for job in found:
        counts = (f"{number:,}" for number in (job.num_items, num_ended(job), job.num_failed))
        table.add_row(job.id, job.state, *counts, f"{job.created_at:%Y-%m-%d %H:%M}")
    Console(highlight=False).print(table)


@jobs.command()
def show(job: JobId, as_json: AsJson = False, url: Url = None) -> None:
    """Show how far a job is, and what came of each of its videos."""
    with _client(url) as client:
        _show(client, client.jobs.get(job), as_json=as_json)


@jobs.command()
def wait(job: JobId, as_json: AsJson = False, url: Url = None) -> None:
    """Wait until a job has ended, and show it; exits with 1 unless every video was labelled."""
    with _client(url) as client:
        _wait(client, client.jobs.get(job), as_json=as_json)


@jobs.command()
def deliveries(job: JobId, as_json: AsJson = False, url: Url = None) -> None:
    """Show what a job's webhook was sent, and what it answered."""
    with _client(url) as client:
        sent = client.jobs.deliveries(job)
    if as_json:
        print("[" + ",\n ".join(each.model_dump_json() for each in sent) + "]")
        return
    if not sent:
        typer.echo("nothing was sent: the job has no webhook, or has not ended")
    for each in sent:
        tries = "1 attempt" if each.attempts == 1 else f"{each.attempts} attempts"
        said = f"answered {each.status}" if each.status is not None else each.reason or "not sent yet"
        after = f", again at {each.next_attempt_at:%Y-%m-%d %H:%M:%S} UTC" if each.next_attempt_at else ""
        typer.echo(f"{each.type} is {each.state} after {tries}: {said}{after}")


@jobs.command()
def cancel(job: JobId, url: Url = None) -> None:
    """End a job now: what has been labelled stays, the rest never will be."""
    with _client(url) as client:
        now = client.jobs.cancel(job)
    typer.echo(f"{now.id} {in_words(now)}")


@jobs.command()
def delete(job: JobId, url: Url = None) -> None:
    """Leave nothing of a job, nor of its videos unless another job needs them."""
    with _client(url) as client:
        client.jobs.delete(job)
    typer.echo(f"{job} is gone")


def num_ended(job: "Job") -> int:
    """Of its videos."""
    return job.num_succeeded + job.num_failed + job.num_cancelled


def in_words(job: "Job") -> str:
    """What has become of it, without its id."""
    parts = [
        f"{number:,} {name}"
        for number, name in (
            (job.num_succeeded, "labelled"),
            (job.num_failed, "failed"),
            (job.num_cancelled, "cancelled"),
            (job.num_items - num_ended(job), "to do"),
        )
        if number
    ]
    return f"is {job.state}: {', '.join(parts)}" if not job.ended else f"{_has[job.state]}: {', '.join(parts)}"


_has = {"succeeded": "has succeeded", "failed": "has failed", "cancelled": "was cancelled"}


def _client(url: str | None) -> "Client":
    from vidseq.client import Client

    return Client(url)


def _webhook(url: str, secret: str | None) -> "Webhook":
    from vidseq.client.job_calls import Webhook
    from vidseq.webhooks import new_secret

    if secret is None:
        raise OptionError(
            f"--webhook needs a secret that signs what is sent: set VIDSEQ_WEBHOOK_SECRET, to {new_secret()} say"
        )
    return Webhook(url, secret)


def _wait(client: "Client", job: "Job", *, as_json: bool) -> None:
    with _bar("labelling", job.num_items, shown=not as_json) as advance:
        ended = client.jobs.wait(job, on_progress=lambda now: advance(num_ended(now)))
    _show(client, ended, as_json=as_json)
    if ended.state != "succeeded":
        raise typer.Exit(1)


def _show(client: "Client", job: "Job", *, as_json: bool) -> None:
    from rich.console import Console

    if as_json:
        print(job.model_dump_json())
        for result in client.jobs.results(job):
            print(result.model_dump_json())
        return
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"{job.id} {in_words(job)}", markup=False)
    for result in client.jobs.results(job):
        name = result.custom_id or f"video {result.position}"
        said = [
            f"{prediction.action.label} ({prediction.action.score:.2f})" if prediction.action else "unknown"
            for prediction in result.predictions
        ]
        why = "" if result.problem is None else f"failed: {result.problem.detail}"
        console.print(f"  {name}  {', '.join(said) or why or result.state}", markup=False)


def _ascii(name: str) -> str:
    """What a custom id may hold; of a long path its end, which tells more."""
    return "".join(letter if " " <= letter <= "~" else ascii(letter)[1:-1] for letter in name)[-200:]


@contextmanager
def _bar(what: str, total: int, *, shown: bool) -> Iterator[Callable[[int], object]]:
    """A bar on standard error, where that is a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(file=sys.stderr)
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not (shown and console.is_terminal)) as bars:
        task = bars.add_task(what, total=total)
        yield lambda done: bars.update(task, completed=done)

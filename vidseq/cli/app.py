"""The command line itself: its help, and what it says when it is interrupted. Knows no command."""

from typing import Any

import typer
from typer.core import TyperGroup


class Commands(TyperGroup):
    """Says a word when interrupted, which Typer does not."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            resumes = ctx.invoked_subcommand == "train"
            hint = "; the same command continues from the last epoch" if resumes else ""
            typer.echo(f"vidseq: interrupted{hint}", err=True)
            raise typer.Exit(130) from None


app = typer.Typer(
    cls=Commands,
    help="Labels for video in time: one action for a clip, a label for every frame.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

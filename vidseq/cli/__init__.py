"""The command line: the door for a person. Each command imports what it needs when it runs, and nothing before."""

from vidseq.cli import keys, label, measure, serve, train
from vidseq.cli.app import Commands, app

__all__ = ["Commands", "app", "keys", "label", "measure", "serve", "train"]

"""The command line: the door for a person. Each command imports what it needs when it runs, and nothing before."""

from vidseq.cli import db, export, features, jobs, keys, label, measure, owners, serve, sign, store, train
from vidseq.cli.app import Commands, app

__all__ = [
    "Commands",
    "app",
    "db",
    "export",
    "features",
    "jobs",
    "keys",
    "label",
    "measure",
    "owners",
    "serve",
    "sign",
    "store",
    "train",
]

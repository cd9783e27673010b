"""One line for each request that is over, as text or JSON. Knows neither routes nor Ray.

    text   2026-11-26T21:50:03.123Z 200 POST /v1/classify 0.412s 281,223 bytes 75 frames model toy key 0123 id ...
    json   {"time": "2026-11-26T21:50:03.123Z", "request_id": "...", "route": "/v1/classify", "method": "POST", ...}

On one machine lines go through a pipe to `vidseq serve`, which prints them: what Ray forwards of its workers' output it
marks, folds and keeps in files. A pipe that is full makes nobody wait; how many lines it cost stands in the next one.
On a cluster they stand in Serve's own log, in its encoding: as text in the message, and as fields under `request`.
"""

import json
import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from serving.finished import Finished, Observer

Form = Literal["text", "json", "off"]

PROBES = frozenset({"/livez", "/readyz", "/metrics"})  # asked every few seconds by machines, for ever
MAX_NAME = 100  # of a model: a line is to fit into a pipe in one piece
_PIPE_BUF = 4096
_THE_END = "\0\n"


def to_logger(logger: logging.Logger) -> Observer:
    """A line of text, with all fields beside it: for a logger whose formatter knows what to do with them."""

    def observe(finished: Finished) -> None:
        if finished.route not in PROBES:
            logger.info(in_words(finished), extra={"request": _fields(finished)})

    return observe


def to_pipe(path: Path, form: Form) -> Observer:
    """A line into a named pipe that somebody reads (`printed`)."""
    handler = _PipeHandler(path)
    handler.setFormatter(_Formatter(form))
    logger = logging.Logger("vidseq.requests", logging.INFO)  # of this pipe alone: no other handler hears of it
    logger.addHandler(handler)
    return to_logger(logger)


def unlogged(finished: Finished) -> None:
    """The Observer of a log that is off."""


def in_words(finished: Finished) -> str:
    """The line without its time."""
    parts = [
        str(finished.status),
        finished.method or "-",
        finished.route or "-",
        f"{finished.seconds:.3f}s",
        f"{finished.bytes_received:,} bytes",
        f"{finished.frames_decoded:,} frames",
    ]
    named = {"model": _name(finished.model), "key": finished.key_id, "problem": finished.problem}
    parts += [f"{name} {value}" for name, value in named.items() if value]
    return " ".join([*parts, f"id {finished.request_id}"])


@contextmanager
def printed(folder: Path, say: Callable[[str], None]) -> Iterator[Path]:
    """A named pipe in `folder`, whose lines are said here as they come; at the end those that are still in it, too.

    Whoever still has it open then writes to nobody, and is not waited for.
    """
    path = folder / "requests"
    os.mkfifo(path, 0o600)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # at once: its first writer may be minutes away
    writer = os.open(path, os.O_WRONLY)  # so that a pipe that nobody writes to yet has no end
    os.set_blocking(reader, True)
    thread = threading.Thread(target=_say_all, args=(reader, say), name="vidseq-requests", daemon=True)
    thread.start()
    try:
        yield path
    finally:
        os.write(writer, _THE_END.encode())
        thread.join()
        os.close(writer)
        path.unlink()


def _say_all(reader: int, say: Callable[[str], None]) -> None:
    with os.fdopen(reader, encoding="utf-8", errors="replace") as lines, suppress(BrokenPipeError):
        for line in iter(lines.readline, _THE_END):
            say(line.removesuffix("\n"))


class _Formatter(logging.Formatter):
    def __init__(self, form: Form) -> None:
        super().__init__()
        self._form = form

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        if self._form == "text":
            return f"{time} {record.getMessage()}"
        return json.dumps({"time": time, **record.__dict__["request"]})


class _PipeHandler(logging.Handler):
    """Writes each line in one piece, so that those of several processes do not mix; never waits."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._descriptor = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        self._num_lost = 0

    def emit(self, record: logging.LogRecord) -> None:
        if self._num_lost:
            record.request = {**record.__dict__["request"], "lines_lost_before": self._num_lost}
            record.msg = f"{record.msg} ({self._num_lost} lines before this one were lost)"
        line = self.format(record).encode() + b"\n"
        assert len(line) <= _PIPE_BUF, f"a line of {len(line)} bytes may be torn"
        try:
            os.write(self._descriptor, line)
            self._num_lost = 0
        except OSError:  # it is full, or its reader has gone
            self._num_lost += 1


def _fields(finished: Finished) -> dict[str, object]:
    return {**asdict(finished), "seconds": round(finished.seconds, 6), "model": _name(finished.model)}


def _name(model: str) -> str:
    """What a folder was called, made harmless for a terminal."""
    return "".join(letter if letter.isprintable() else "?" for letter in model[:MAX_NAME])

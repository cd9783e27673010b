"""What a stranger wrote, checked cell by cell: tables, names, numbers, paths. Knows nothing of clips.

A check answers with a value or raises `Mistake`, one sentence. `Findings.ask` collects the sentences with their places,
so that all can be told at once.
"""

import csv
import io
import math
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ParamSpec, TypeVar

SEPARATOR = "|"  # of the actions in a cell, where a clip may have several
P = ParamSpec("P")
T = TypeVar("T")


class Mistake(Exception):
    """What is wrong, in a sentence without its place."""


@dataclass
class Findings:
    """Problems forbid, warnings do not; each begins with its place."""

    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def ask(self, where: str, check: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | None:
        """What `check` answers; None, and a problem at `where`, if it finds a mistake."""
        try:
            return check(*args, **kwargs)
        except Mistake as mistake:
            self.problems.append(f"{where}: {mistake}")
            return None


def read_table(path: Path, findings: Findings, *, columns: Sequence[str]) -> Iterator[tuple[str, dict[str, str]]]:
    """(file:line, row) of a CSV file whose header has at least `columns`. Cells lose the blanks around them."""
    text = findings.ask(path.name, read_text, path)
    if text is None:
        return
    lines = csv.reader(io.StringIO(text, newline=""), strict=True)
    header: list[str] = []
    num_rows = 0
    try:
        for line in lines:
            where = f"{path.name}:{lines.line_num}"
            cells = [cell.strip() for cell in line]
            if not any(cells):
                continue
            if not header:
                header = cells
                if findings.ask(where, check_header, header, columns) is None:
                    return
                continue
            num_rows += 1
            if len(cells) == len(header):
                yield where, dict(zip(header, cells, strict=True))
            else:
                findings.problems.append(f"{where}: {len(cells)} cells, but the header has {len(header)}")
    except csv.Error as error:
        findings.problems.append(f"{path.name}:{lines.line_num}: not CSV: {error}")
        return
    if num_rows == 0:
        findings.problems.append(f"{path.name}: empty; a header with {', '.join(columns)} and a row are needed")


def read_text(path: Path) -> str:
    """UTF-8, with or without a byte order mark."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise Mistake(f"cannot be read: {error.strerror}") from error
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise Mistake(f"not UTF-8 text: byte {content[error.start]:#04x} in line {line}") from error


def check_header(header: Sequence[str], columns: Sequence[str]) -> Sequence[str]:
    for column in columns:
        if column not in header:
            raise Mistake(f"no column {column!r}; the columns are {header}")
    if len(set(header)) < len(header):
        raise Mistake(f"a column is named twice; the columns are {header}")
    return header


def check_name(text: str, column: str) -> str:
    """Printable, because names are shown in terminals and pages."""
    if not text or not text.isprintable():
        raise Mistake(f"{column} is {text!r}; a name of printable characters is needed")
    return text


def check_label(text: str, known_labels: Collection[str] | None) -> str:
    """A name, one of the known ones if there are any."""
    check_name(text, "label")
    if known_labels is not None and text not in known_labels:
        raise Mistake(f"label {text!r} is unknown; known are {', '.join(sorted(known_labels))}")
    return text


def check_labels(text: str, known_labels: Collection[str] | None) -> str:
    """Names parted by |, each once, in alphabetical order: equal sets are equal text. A lone | stands for none."""
    if text == SEPARATOR:
        return text
    names = sorted(check_label(name.strip(), known_labels) for name in text.split(SEPARATOR))
    if len(set(names)) < len(names):
        raise Mistake(f"label {text!r} names one twice")
    return SEPARATOR.join(names)


def check_seconds(text: str, column: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise Mistake(f"{column} {text!r} is not a number of seconds from 0 on")
    return seconds


def resolve(folder: Path, text: str) -> Path:
    """The path that `text` names in `folder`, symlinks followed; refused where that leads out of it."""
    if not text or Path(text).is_absolute():
        raise Mistake(f"path {text!r} is not relative to the folder")
    root = folder.resolve()
    try:
        path = (root / text).resolve()
    except (OSError, RuntimeError, ValueError) as error:  # a loop of symlinks, a NUL
        raise Mistake(f"path {text!r} cannot be followed: {error}") from error
    if path == root or not path.is_relative_to(root):
        raise Mistake(f"path {text!r} does not lead into the folder")
    return path


def visible(folder: Path) -> list[Path]:
    """The entries of a folder by name, without hidden ones such as .DS_Store and __MACOSX."""
    try:
        return sorted(entry for entry in folder.iterdir() if not entry.name.startswith((".", "__")))
    except OSError as error:
        raise Mistake(f"cannot be read: {error.strerror}") from error

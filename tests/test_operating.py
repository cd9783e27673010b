"""What docs/operating.md says is so: its figures are counted, its times are the defaults, a copy restores answers."""

import re
import threading
from contextlib import closing
from pathlib import Path

from serving.database.backup import backup
from serving.database.core import Database
from serving.once.kept import Answer, Claim, Kept, OnceSettings
from serving.once.question import Question
from serving.sealing import Vault, load_keys, new_key
from serving.store import Lifetimes
from serving.uploads.table import UploadSettings
from serving.usage.table import UsageSettings

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "operating.md").read_text()


def test_every_figure_on_the_page_is_counted_and_every_figure_that_is_counted_is_there() -> None:
    named = {re.sub(r"_(total|bucket)$", "", name) for name in re.findall(r"ray_(vidseq_\w+)", PAGE)}
    counted = set(re.findall(r'"(vidseq_\w+)"', (ROOT / "serving" / "counters.py").read_text()))
    assert named == counted
    assert len(counted) > 10


def test_every_problem_on_the_page_is_one() -> None:
    api = (ROOT / "docs" / "api.md").read_text()
    named = re.findall(r"\b(?:503|401|429) `([a-z]+/[a-z-]+)`", PAGE)
    assert len(named) > 5
    assert [name for name in named if f"| `{name}` |" not in api] == []


def test_the_times_on_the_page_are_the_defaults() -> None:
    lifetimes, once = Lifetimes(), OnceSettings()
    kept = (lifetimes.idle_seconds, lifetimes.ended_seconds, lifetimes.absolute_seconds, lifetimes.remembered_seconds)
    assert kept == (10 * 60, 2 * 60, 24 * 3600, 3600)
    assert "10 minutes without a push, 2 minutes after its end, a day in all" in PAGE
    assert (lifetimes.kept_answers, once.kept_seconds, UsageSettings().kept_days) == (128, 24 * 3600, 400)
    assert all(words in PAGE for words in ("its last 128 answers", "| 24 hours;", "| 400 days |"))
    assert (UsageSettings().flush_seconds, once.sweep_seconds) == (5, 60)


def test_the_bounds_of_uploads_on_the_page_are_the_defaults() -> None:
    uploads = UploadSettings()
    assert (uploads.max_upload_bytes, uploads.max_owner_bytes, uploads.max_owner_uploads) == (2**32, 2**34, 10_000)
    assert (uploads.min_free_bytes, uploads.kept_seconds, uploads.sweep_seconds) == (2**28, 24 * 3600, 60)
    told = ("`max_upload_bytes` (4 GiB)", "`max_owner_bytes` (16 GiB)", "(10,000)", "`min_free_bytes` (256 MiB)")
    assert [words for words in (*told, "a day after its last byte") if words not in PAGE] == []


def asked(number: int) -> Question:
    return Question("0123456789ab", number.to_bytes(32), b"a" * 32, "0" * 64)


def keep(kept: Kept, number: int) -> None:
    claim = kept.claim(asked(number))
    assert isinstance(claim, Claim)
    kept.keep(claim, Answer(200, b"labels %d" % number))


def test_answers_that_were_kept_are_given_again_after_a_restore_from_a_copy_made_under_writers(tmp_path: Path) -> None:
    vault, stop = Vault(load_keys(new_key())), threading.Event()
    url = f"sqlite://{tmp_path}/vidseq.db"
    with closing(Database(url)) as database:
        kept = Kept(database, vault, OnceSettings())
        keep(kept, 0)

        def write_on() -> None:
            number = 1
            while not stop.is_set():
                keep(kept, number)
                number += 1

        writer = threading.Thread(target=write_on)
        writer.start()
        backup(url, tmp_path / "copy.db")
        stop.set()
        writer.join()
    for path in tmp_path.glob("vidseq.db*"):
        path.unlink()
    (tmp_path / "copy.db").rename(tmp_path / "vidseq.db")
    with closing(Database(url)) as restored:
        assert Kept(restored, vault, OnceSettings()).claim(asked(0)) == Answer(200, b"labels 0")

"""Uploads without HTTP: any pieces and any cuts give the same file; one writer at a time; quotas, ages, deletions."""

import errno
import hashlib
import io
import multiprocessing
import os
import random
import resource
import signal
import stat
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from databases import *  # noqa: F403  fixtures
from hypothesis import given, settings
from hypothesis import strategies as st
from process_limits import limited
from sqlalchemy import select, update

from serving.database.core import Database
from serving.database.tables import uploads as table
from serving.places import open_uploads
from serving.uploads.errors import (
    StorageDown,
    StorageFull,
    UploadBusy,
    UploadDigest,
    UploadIncomplete,
    UploadNotFound,
    UploadOffset,
    UploadQuota,
    UploadTooLarge,
)
from serving.uploads.places import UPLOADS, open_folder, uploads_folder
from serving.uploads.table import ASKED_AT_ONCE, UploadSettings
from serving.uploads.uploads import ORPHAN_SECONDS, Uploads
from vidseq.errors import OptionError

SPAWN = multiprocessing.get_context("spawn")
VIDEO = random.Random(0).randbytes(100_000)  # the same in every process
IDS = ["", "0" * 32, "../vidseq", "..", "a/b", "\0", "é" * 32, "0" * 33, "0" * 31 + "\n", "0" * 31 + "A"]
SHA256 = hashlib.sha256(VIDEO).hexdigest()


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    with closing(Database(database_url)) as database:
        yield database


@pytest.fixture
def uploads(database: Database, tmp_path: Path) -> Uploads:
    return uploads_in(database, tmp_path / "uploads")


def uploads_in(database: Database, folder: Path, **settings: Any) -> Uploads:
    return open_folder(database, folder, UploadSettings.model_validate({"min_free_bytes": 1} | settings))


def begun(uploads: Uploads, num_sent: int = 0, *, owner: str = "ann") -> str:
    upload_id = uploads.create(owner, num_bytes=len(VIDEO)).id
    send(uploads, upload_id, 0, num_sent, owner=owner)
    return upload_id


def send(uploads: Uploads, upload_id: str, first: int, end: int, *, owner: str = "ann") -> None:
    with uploads.append(owner, upload_id, offset=first) as appending:
        appending.write(VIDEO[first:end])
        appending.finish()


def added(uploads: Uploads, *, owner: str = "ann", content: bytes = VIDEO) -> str:
    return uploads.add(owner, io.BytesIO(content)).id


def content(uploads: Uploads, upload_id: str, *, owner: str = "ann") -> bytes:
    with uploads.opened(owner, upload_id) as file:
        return file.read()


def files(tmp_path: Path) -> list[str]:
    return sorted(path.stem for path in (tmp_path / "uploads").iterdir())


def pass_time(database: Database, seconds: float) -> None:
    """What was written is so much older."""
    with database.writing() as connection:
        connection.execute(update(table).values(expires_at=table.c.expires_at - seconds))


# Pieces ----------------------------------------------------------------------------------------


@settings(max_examples=60)
@given(
    video=st.binary(min_size=1, max_size=300),
    cuts=st.lists(st.tuples(st.integers(1, 60), st.booleans()), max_size=20),
)
def test_any_pieces_and_any_cuts_give_the_same_file(video: bytes, cuts: list[tuple[int, bool]]) -> None:
    """Each turn sends some bytes, and then ends in good order, or its holder just lets go."""
    with tempfile.TemporaryDirectory() as folder, closing(Database(f"sqlite://{folder}/a.db")) as database:
        uploads = uploads_in(database, Path(folder) / "uploads")
        upload_id = uploads.create("ann", num_bytes=len(video)).id
        for num_bytes, in_good_order in [*cuts, (len(video), True)]:
            offset = uploads.get("ann", upload_id).offset
            with uploads.append("ann", upload_id, offset=offset) as appending:
                for number in range(offset, min(offset + num_bytes, len(video))):
                    appending.write(video[number : number + 1])
                if in_good_order:
                    appending.finish()
        done = uploads.complete("ann", upload_id, sha256=hashlib.sha256(video).hexdigest())
        assert (done.complete, done.offset) == (True, len(video))
        assert content(uploads, upload_id) == video


def test_an_upload_tells_where_it_stands(uploads: Uploads) -> None:
    made = uploads.create("ann", num_bytes=len(VIDEO), sha256=SHA256)
    assert (made.offset, made.num_bytes, made.complete, made.sha256) == (0, len(VIDEO), False, SHA256)
    send(uploads, made.id, 0, 10)
    assert uploads.get("ann", made.id).offset == 10
    send(uploads, made.id, 10, len(VIDEO))
    done = uploads.complete("ann", made.id)
    assert (done.offset, done.complete, done.sha256) == (len(VIDEO), True, SHA256)
    assert done == uploads.get("ann", made.id)
    assert done.expires_at > made.expires_at


@pytest.mark.parametrize("offset", [0, 9, 11])
def test_bytes_that_are_not_the_next_are_refused_with_where_those_begin(uploads: Uploads, offset: int) -> None:
    upload_id = begun(uploads, 10)
    with pytest.raises(UploadOffset, match="begin at 10") as caught:
        uploads.append("ann", upload_id, offset=offset)
    assert caught.value.offset == 10


def test_while_one_appends_nobody_else_does_and_then_the_next_goes_on(uploads: Uploads) -> None:
    upload_id = begun(uploads)
    with uploads.append("ann", upload_id, offset=0) as first:
        first.write(VIDEO[:10])
        for late in (0, 10):
            with pytest.raises(UploadBusy):
                uploads.append("ann", upload_id, offset=late)
        with pytest.raises(UploadBusy):
            uploads.complete("ann", upload_id, sha256=SHA256)
        assert uploads.get("ann", upload_id).offset == 10  # to look is free
    send(uploads, upload_id, 10, 20)
    first.write(b"late")
    assert uploads.get("ann", upload_id).offset == 20


def test_of_many_who_append_at_once_no_byte_is_lost_or_doubled(uploads: Uploads) -> None:
    upload_id = begun(uploads)

    def append_all() -> None:
        while (offset := uploads.get("ann", upload_id).offset) < len(VIDEO):
            with suppress(UploadBusy, UploadOffset):
                send(uploads, upload_id, offset, min(offset + 7_000, len(VIDEO)))

    threads = [threading.Thread(target=append_all) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert uploads.complete("ann", upload_id, sha256=SHA256).complete


def test_more_bytes_than_were_declared_are_refused_and_those_before_are_kept(uploads: Uploads) -> None:
    upload_id = begun(uploads, len(VIDEO) - 1)
    with uploads.append("ann", upload_id, offset=len(VIDEO) - 1) as appending:
        with pytest.raises(UploadTooLarge, match="100,000 bytes, and 100,001 came"):
            appending.write(b"xy")
        appending.write(VIDEO[-1:])  # after a gap nothing is written
    assert uploads.get("ann", upload_id).offset == len(VIDEO) - 1
    send(uploads, upload_id, len(VIDEO) - 1, len(VIDEO))
    assert uploads.complete("ann", upload_id, sha256=SHA256).complete


def test_a_turn_can_be_taken_back(uploads: Uploads) -> None:
    upload_id = begun(uploads, 10)
    with uploads.append("ann", upload_id, offset=10) as appending:
        appending.write(b"damaged")
        appending.undo()
    assert uploads.get("ann", upload_id).offset == 10


# Complete ----------------------------------------------------------------------------------------


def test_what_is_too_short_is_not_complete(uploads: Uploads) -> None:
    upload_id = begun(uploads, 10)
    with pytest.raises(UploadIncomplete, match="10 of 100,000"):
        uploads.complete("ann", upload_id, sha256=SHA256)
    with pytest.raises(UploadIncomplete):
        uploads.opened("ann", upload_id)


def test_a_wrong_digest_is_told_and_the_right_one_completes_all_the_same(uploads: Uploads) -> None:
    upload_id = begun(uploads, len(VIDEO))
    with pytest.raises(UploadDigest, match=SHA256):
        uploads.complete("ann", upload_id, sha256="0" * 64)
    assert not uploads.get("ann", upload_id).complete
    assert uploads.complete("ann", upload_id, sha256=SHA256.upper()).complete


def test_complete_asked_again_is_the_same_unless_with_another_digest(uploads: Uploads) -> None:
    upload_id = begun(uploads, len(VIDEO))
    first = uploads.complete("ann", upload_id, sha256=SHA256)
    assert uploads.complete("ann", upload_id, sha256=SHA256) == uploads.complete("ann", upload_id) == first
    with pytest.raises(UploadDigest):
        uploads.complete("ann", upload_id, sha256="0" * 64)


def test_a_digest_that_nobody_has_said_is_asked_for(uploads: Uploads) -> None:
    upload_id = begun(uploads, len(VIDEO))
    with pytest.raises(OptionError, match="sha256 is needed"):
        uploads.complete("ann", upload_id)
    with pytest.raises(OptionError, match="64 hexadecimal"):
        uploads.complete("ann", upload_id, sha256="zz")


def test_what_was_declared_and_what_is_said_then_must_be_one(uploads: Uploads) -> None:
    upload_id = uploads.create("ann", num_bytes=len(VIDEO), sha256="1" * 64).id
    send(uploads, upload_id, 0, len(VIDEO))
    with pytest.raises(UploadDigest, match="was said to have"):
        uploads.complete("ann", upload_id, sha256=SHA256)


def test_a_whole_one_is_added_at_once(uploads: Uploads) -> None:
    for upload in (uploads.add("ann", io.BytesIO(VIDEO)), uploads.add("ann", iter([VIDEO[:9], VIDEO[9:]]))):
        assert (upload.complete, upload.sha256, upload.num_bytes) == (True, SHA256, len(VIDEO))
        assert content(uploads, upload.id) == VIDEO


def test_what_breaks_while_it_is_added_leaves_nothing(uploads: Uploads, tmp_path: Path) -> None:
    def pieces() -> Iterator[bytes]:
        yield VIDEO
        raise KeyError

    with pytest.raises(KeyError):
        uploads.add("ann", pieces())
    assert files(tmp_path) == []


# Whose, and how many ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("upload_id", IDS)
def test_what_is_no_id_is_not_found_whatever_it_is(uploads: Uploads, database: Database, upload_id: str) -> None:
    for ask in (uploads.get, uploads.opened, uploads.delete, uploads.complete):
        with pytest.raises(UploadNotFound):
            ask("ann", upload_id)
    with pytest.raises(UploadNotFound), database.writing() as connection:
        uploads.keep_until(connection, "ann", [upload_id], 4e9)


def test_what_is_anothers_is_not_found_even_while_it_is_busy(uploads: Uploads) -> None:
    upload_id = begun(uploads, len(VIDEO))
    with uploads.append("ann", upload_id, offset=len(VIDEO)):
        for ask in (uploads.get, uploads.opened, uploads.delete, uploads.complete):
            with pytest.raises(UploadNotFound, match=upload_id):
                ask("ben", upload_id)
        with pytest.raises(UploadNotFound):
            uploads.append("ben", upload_id, offset=len(VIDEO))
    assert uploads.complete("ann", upload_id, sha256=SHA256).complete


def test_one_is_no_larger_than_allowed(database: Database, tmp_path: Path) -> None:
    uploads = uploads_in(database, tmp_path / "uploads", max_upload_bytes=1_000)
    with pytest.raises(UploadTooLarge, match="1,001 bytes; at most 1,000"):
        uploads.create("ann", num_bytes=1_001)
    with pytest.raises(UploadTooLarge):
        uploads.add("ann", io.BytesIO(VIDEO))
    assert (uploads.create("ann", num_bytes=1_000).num_bytes, len(files(tmp_path))) == (1_000, 1)


def test_all_of_an_owner_are_no_more_than_allowed(database: Database, tmp_path: Path) -> None:
    uploads = uploads_in(database, tmp_path / "uploads", max_owner_bytes=2_000)
    first = uploads.create("ann", num_bytes=1_500).id
    with pytest.raises(UploadQuota, match="1,500 bytes, and with these 501 more"):
        uploads.create("ann", num_bytes=501)
    uploads.create("ben", num_bytes=2_000)
    uploads.delete("ann", first)
    uploads.add("ann", io.BytesIO(bytes(2_000)))
    assert len(files(tmp_path)) == 2


def test_so_is_their_number(database: Database, tmp_path: Path) -> None:
    uploads = uploads_in(database, tmp_path / "uploads", max_owner_uploads=2)
    for _ in range(2):
        uploads.create("ann", num_bytes=1)
    with pytest.raises(UploadQuota, match="2 uploads"):
        uploads.add("ann", [b"x"])
    assert len(files(tmp_path)) == 2


def test_of_many_who_ask_at_once_no_more_get_a_place_than_fit(database: Database, tmp_path: Path) -> None:
    uploads = uploads_in(database, tmp_path / "uploads", max_owner_bytes=3_000)
    made = list[str]()

    def create() -> None:
        with suppress(UploadQuota):
            made.append(uploads.create("ann", num_bytes=1_000).id)

    threads = [threading.Thread(target=create) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(made) == files(tmp_path)
    assert len(made) == 3


# Disks ----------------------------------------------------------------------------------------


def test_what_is_to_stay_free_is_never_taken(database: Database, tmp_path: Path) -> None:
    uploads = uploads_in(database, tmp_path / "uploads", min_free_bytes=2**60)
    with pytest.raises(StorageFull, match="no room"):
        uploads.create("ann", num_bytes=1)
    with pytest.raises(StorageFull):
        uploads.add("ann", [b"x"])
    assert files(tmp_path) == []


def test_a_full_disk_keeps_what_fitted_and_the_rest_goes_on_later(uploads: Uploads) -> None:
    upload_id = begun(uploads)
    appending = uploads.append("ann", upload_id, offset=0)
    with appending, limited(resource.RLIMIT_FSIZE, 30_000), pytest.raises(StorageFull):
        appending.write(VIDEO)
    assert uploads.get("ann", upload_id).offset == 30_000
    send(uploads, upload_id, 30_000, len(VIDEO))
    assert uploads.complete("ann", upload_id, sha256=SHA256).complete


def test_files_are_their_owners_alone(uploads: Uploads, tmp_path: Path) -> None:
    begun(uploads)
    (file,) = (tmp_path / "uploads").iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


def test_a_link_in_place_of_a_file_is_not_followed(uploads: Uploads, tmp_path: Path) -> None:
    upload_id = begun(uploads)
    other, file = tmp_path / "other", tmp_path / "uploads" / f"{upload_id}.upload"
    other.write_bytes(b"")
    file.unlink()
    file.symlink_to(other)
    with pytest.raises(StorageDown) as caught:
        uploads.append("ann", upload_id, offset=0)
    assert caught.value.reason == os.strerror(errno.ELOOP)


def test_a_folder_that_is_gone_is_the_services_fault_and_a_file_that_is_gone_no_upload(
    uploads: Uploads, tmp_path: Path
) -> None:
    upload_id = begun(uploads)
    (tmp_path / "uploads" / f"{upload_id}.upload").unlink()
    with pytest.raises(UploadNotFound):
        uploads.get("ann", upload_id)
    (tmp_path / "uploads").rmdir()
    with pytest.raises(StorageDown):
        uploads.get("ann", upload_id)
    with pytest.raises(StorageDown):
        uploads.create("ann", num_bytes=1)


def test_a_folder_that_cannot_be_one_is_refused_in_a_sentence(database: Database, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OptionError, match="file cannot be the folder of uploads: File exists"):
        uploads_in(database, tmp_path / "file")


def test_uploads_lie_where_it_is_said_or_beside_a_sqlite(sqlite_url: str, tmp_path: Path) -> None:
    beside = Database(sqlite_url)
    assert uploads_folder(beside, named=None) == uploads_folder(beside, named="") == tmp_path / "vidseq-uploads"
    shared = Database("postgresql://u:p@127.0.0.1/d")
    assert (uploads_folder(shared, named=None), uploads_folder(shared, named="/mnt/a")) == (None, Path("/mnt/a"))


def test_the_environment_of_a_node_names_the_folder(sqlite_url: str, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.delenv(UPLOADS, raising=False)
    shared = Database("postgresql://u:p@127.0.0.1/d")
    assert open_uploads(shared, UploadSettings()) is None
    assert open_uploads(Database(sqlite_url), UploadSettings()) is not None
    assert (tmp_path / "vidseq-uploads").is_dir()
    monkeypatch.setenv(UPLOADS, str(tmp_path / "named"))
    assert open_uploads(shared, UploadSettings()) is not None
    assert (tmp_path / "named").is_dir()


# Ages and deletions ----------------------------------------------------------------------------------------


def test_what_is_deleted_is_gone_and_whoever_writes_to_it_hears_so(uploads: Uploads, tmp_path: Path) -> None:
    upload_id = begun(uploads)
    with uploads.append("ann", upload_id, offset=0) as appending:
        uploads.delete("ann", upload_id)
        with pytest.raises(UploadNotFound):
            appending.write(VIDEO)
        with pytest.raises(UploadNotFound):
            appending.finish()
    with pytest.raises(UploadNotFound):
        uploads.delete("ann", upload_id)
    assert files(tmp_path) == []


def test_what_nobody_has_sent_to_for_long_expires_and_is_swept(
    uploads: Uploads, database: Database, tmp_path: Path
) -> None:
    old, sent = begun(uploads, 10), begun(uploads, 10)
    done = added(uploads)
    pass_time(database, 24 * 3600 - 60)
    send(uploads, sent, 10, 20)
    assert uploads.sweep() == 0
    pass_time(database, 61)
    for upload_id in (old, done):
        with pytest.raises(UploadNotFound):
            uploads.get("ann", upload_id)
    assert (uploads.sweep(), uploads.sweep()) == (2, 0)
    assert files(tmp_path) == [sent]


def test_what_is_being_written_to_is_not_swept(uploads: Uploads, database: Database) -> None:
    upload_id = begun(uploads)
    with uploads.append("ann", upload_id, offset=0) as appending:
        pass_time(database, 24 * 3600 + 1)
        appending.write(VIDEO[:10])
        assert uploads.sweep() == 0
        appending.finish()
    assert (uploads.get("ann", upload_id).offset, uploads.sweep()) == (10, 0)


def test_files_without_a_row_are_swept_once_they_are_old(uploads: Uploads, tmp_path: Path) -> None:
    kept = begun(uploads)
    young, old, other = ("a" * 32, "b" * 32, "somebody's film")
    for stem in (young, old, other):
        (tmp_path / "uploads" / f"{stem}.upload").touch()
    then = time.time() - ORPHAN_SECONDS - 1
    for stem in (kept, old, other):
        os.utime(tmp_path / "uploads" / f"{stem}.upload", (then, then))
    assert uploads.sweep() == 1
    assert files(tmp_path) == sorted([kept, young, other])


def test_what_a_job_needs_is_kept_for_longer_but_never_for_less(uploads: Uploads, database: Database) -> None:
    needed, other = added(uploads), added(uploads)
    for seconds in (48 * 3600, 60):
        with database.writing() as connection:
            uploads.keep_until(connection, "ann", [needed, needed], database.now(connection) + seconds)
    pass_time(database, 24 * 3600 + 1)
    assert uploads.sweep() == 1
    assert content(uploads, needed) == VIDEO
    with pytest.raises(UploadNotFound):
        uploads.get("ann", other)


def test_of_what_a_job_needs_all_must_be_there(uploads: Uploads, database: Database) -> None:
    done, open_, bens = added(uploads), begun(uploads), added(uploads, owner="ben")
    for wrong, error in ((open_, UploadIncomplete), (bens, UploadNotFound), ("0" * 32, UploadNotFound)):
        with pytest.raises(error), database.writing() as connection:
            uploads.keep_until(connection, "ann", [done, wrong], 4e9)
    with database.reading() as connection:
        assert max(connection.execute(select(table.c.expires_at)).scalars()) < 4e9


def test_a_job_may_need_very_many(uploads: Uploads, database: Database) -> None:
    ids = [added(uploads, content=b"x") for _ in range(ASKED_AT_ONCE + 2)]
    with database.writing() as connection:
        uploads.keep_until(connection, "ann", ids, 4e9)
    with database.reading() as connection:
        assert set(connection.execute(select(table.c.expires_at)).scalars()) == {4e9}


def test_all_of_an_owner_can_be_forgotten(uploads: Uploads, tmp_path: Path) -> None:
    begun(uploads, 10)
    added(uploads)
    bens = added(uploads, owner="ben")
    assert (uploads.forget("ann"), uploads.forget("ann")) == (2, 0)
    assert files(tmp_path) == [bens]


def test_what_was_deleted_can_still_be_read_by_who_has_opened_it(uploads: Uploads) -> None:
    upload_id = added(uploads)
    with uploads.opened("ann", upload_id) as file:
        uploads.delete("ann", upload_id)
        assert file.read() == VIDEO


# Kills ----------------------------------------------------------------------------------------


def append_until_killed(url: str, folder: Path, upload_id: str) -> None:
    with closing(Database(url)) as database:
        uploads = uploads_in(database, folder)
        offset = uploads.get("ann", upload_id).offset
        with uploads.append("ann", upload_id, offset=offset) as appending:
            while True:
                appending.write(VIDEO[appending.offset : appending.offset + 100])
                time.sleep(0.01)


@pytest.mark.parametrize("after_bytes", [1_000, 5_000])
def test_what_a_killed_process_has_written_is_there_and_the_next_goes_on(
    database_url: str, uploads: Uploads, tmp_path: Path, after_bytes: int
) -> None:
    upload_id = begun(uploads)
    writer = SPAWN.Process(target=append_until_killed, args=(database_url, tmp_path / "uploads", upload_id))
    writer.start()
    try:
        deadline = time.monotonic() + 60
        while (seen := uploads.get("ann", upload_id).offset) < after_bytes:
            assert time.monotonic() < deadline and writer.is_alive()
        with pytest.raises(UploadBusy):
            uploads.append("ann", upload_id, offset=seen)
    finally:
        assert writer.pid is not None
        os.kill(writer.pid, signal.SIGKILL)
        writer.join(60)
    offset = uploads.get("ann", upload_id).offset
    assert seen <= offset < len(VIDEO)
    send(uploads, upload_id, offset, len(VIDEO))
    assert uploads.complete("ann", upload_id, sha256=SHA256).complete

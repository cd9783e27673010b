"""Whom the keys of a file let in, from one moment to the next, and what the others are told."""

import asyncio
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.keyring import (
    BELIEVED_SECONDS,
    FRESH_SECONDS,
    KeyExpired,
    KeyMalformed,
    KeyRevoked,
    KeyRing,
    KeysDown,
    KeyUnknown,
)
from serving.keys import revoke_key
from tests.test_keys import checked, id_of, made


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys.db"


def test_a_key_is_let_in_with_its_name_and_its_scopes(path: Path) -> None:
    text = made(path, "anna", scopes=("stream", "classify"))
    key = checked(path, text)
    assert (key.key_id, key.name, key.scopes) == (id_of(text), "anna", {"classify", "stream"})


def test_one_letter_of_the_secret_makes_another_key(path: Path) -> None:
    text = made(path)
    for wrong in (text[:-1] + ("A" if text[-1] != "A" else "B"), made(path, "ben")[:16] + text[16:]):
        with pytest.raises(KeyUnknown):
            checked(path, wrong)


def test_a_wrong_secret_and_an_unknown_id_are_told_in_the_same_words(path: Path) -> None:
    text = made(path)
    told = []
    for wrong in (text[:17] + "A" * 43, "vsk_" + "0" * 12 + "_" + "A" * 43):
        with pytest.raises(KeyUnknown) as caught:
            checked(path, wrong)
        told.append((str(caught.value), caught.value.code))
    assert told[0] == told[1]


@given(st.text(max_size=80))
def test_what_is_no_key_is_malformed_and_told_so_in_the_same_words(text: str) -> None:
    with pytest.raises(KeyMalformed, match=r"^what was sent as a key is none: vsk_, an id, _ and a secret$"):
        asyncio.run(KeyRing(Path("absent")).check(text))


def test_an_expired_and_a_revoked_key_are_told_so(path: Path) -> None:
    brief, revoked = made(path, seconds=0.01), made(path)
    revoke_key(path, id_of(revoked))
    time.sleep(0.02)
    with pytest.raises(KeyExpired):
        checked(path, brief)
    with pytest.raises(KeyRevoked):
        checked(path, revoked)


def test_while_a_file_is_being_written_what_was_read_last_holds_for_a_while(path: Path) -> None:
    text, ring = made(path), KeyRing(path)

    async def story() -> None:
        with closing(sqlite3.connect(path, isolation_level=None)) as writer:
            await ring.check(text)
            writer.execute("BEGIN EXCLUSIVE")  # as a commit does, for as long as the disk takes
            await asyncio.sleep(2 * FRESH_SECONDS)
            await ring.check(text)
            with pytest.raises(KeysDown):
                await KeyRing(path).check(text)  # it has never read any
            await asyncio.sleep(BELIEVED_SECONDS)
            with pytest.raises(KeysDown):
                await ring.check(text)
            writer.execute("ROLLBACK")
            await asyncio.sleep(FRESH_SECONDS)
            await ring.check(text)

    asyncio.run(story())


def test_a_ring_sees_what_another_process_wrote_soon(path: Path) -> None:
    first = made(path)
    ring = KeyRing(path)

    async def follow() -> None:
        assert (await ring.check(first)).name == "anna"
        second = made(path)
        revoke_key(path, id_of(first))
        await asyncio.sleep(FRESH_SECONDS)
        assert (await ring.check(second)).key_id == id_of(second)
        with pytest.raises(KeyRevoked):
            await ring.check(first)

    asyncio.run(follow())


def test_a_file_that_has_gone_lets_nobody_in(path: Path) -> None:
    text = made(path)
    ring = KeyRing(path)

    async def follow() -> None:
        await ring.check(text)
        path.unlink()
        await asyncio.sleep(FRESH_SECONDS)
        with pytest.raises(KeysDown):
            await ring.check(text)

    asyncio.run(follow())


def test_the_file_is_read_from_a_folder_that_nobody_may_write_to(path: Path) -> None:
    text = made(path)
    path.chmod(0o400)
    path.parent.chmod(0o500)
    try:
        assert checked(path, text).name == "anna"
    finally:
        path.parent.chmod(0o700)

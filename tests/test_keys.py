"""API keys in their file, and the command line that makes, lists and revokes them."""

import asyncio
import re
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from serving.keyring import KeyRevoked, KeyRing
from serving.keys import FILE_KIND, Key, create_key, digest_of, list_keys, revoke_key
from serving.store import Lifetimes, open_store
from tests.test_imports import loaded_by
from vidseq.cli import app
from vidseq.errors import OptionError, VidseqError

SHAPE = re.compile(r"vsk_([0-9a-f]{12})_[A-Za-z0-9_-]{43}")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys.db"


def made(
    path: Path,
    name: str = "anna",
    *,
    scopes: tuple[str, ...] = ("classify",),
    seconds: float | None = None,
    models: tuple[str, ...] | None = None,
) -> str:
    return create_key(path, name=name, scopes=scopes, lifetime_seconds=seconds, models=models)


def id_of(key: str) -> str:
    match = SHAPE.fullmatch(key)
    assert match
    return match[1]


def checked(path: Path, key: str) -> Key:
    return asyncio.run(KeyRing(path).check(key))


# The file


def test_the_file_keeps_no_secret_and_belongs_to_its_owner_alone(path: Path) -> None:
    text = made(path)
    kept = path.read_bytes()
    assert id_of(text).encode() in kept
    assert text.rpartition(id_of(text))[2].encode() not in kept
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [child.name for child in path.parent.iterdir()] == [path.name]


def test_a_key_in_a_trace_shows_no_digest(path: Path) -> None:
    key = checked(path, made(path))
    assert key.key_id in repr(key) and repr(key.digest) not in repr(key)


def test_two_keys_of_one_name_are_live_and_a_third_is_refused(path: Path) -> None:
    first, second = made(path), made(path)
    with pytest.raises(OptionError, match=f"2 keys named 'anna' are live .*{id_of(first)}.*revoke one"):
        made(path)
    made(path, "ben")
    revoke_key(path, id_of(first))
    third = made(path)
    assert {checked(path, key).key_id for key in (second, third)} == {id_of(second), id_of(third)}


def test_a_key_may_be_for_some_models_alone(path: Path) -> None:
    text = create_key(path, name="anna", scopes=["classify"], lifetime_seconds=None, models=["b", "a, c", "b"])
    assert checked(path, text).models == {"a, c", "b"}
    assert checked(path, made(path)).models is None


OLD_TABLE = """
CREATE TABLE keys (key_id TEXT PRIMARY KEY, name TEXT NOT NULL, digest BLOB NOT NULL, scopes TEXT NOT NULL,
    created_seconds REAL NOT NULL, expires_seconds REAL, revoked_seconds REAL) STRICT;
"""


def old_file(path: Path, text: str) -> None:
    """As they were made before keys knew of models."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(OLD_TABLE)
        connection.execute(f"PRAGMA application_id = {FILE_KIND}")
        row = (id_of(text), "anna", digest_of(text), "classify", 1.0, None, None)
        connection.execute("INSERT INTO keys VALUES (?, ?, ?, ?, ?, ?, ?)", row)


def test_keys_of_a_file_that_knows_no_models_may_ask_all_and_it_takes_new_ones(path: Path) -> None:
    old = "vsk_0123456789ab_" + "x" * 43
    old_file(path, old)
    before = path.read_bytes()
    assert checked(path, old).models is None and path.read_bytes() == before, "a reader writes nothing"
    new = create_key(path, name="ben", scopes=["classify"], lifetime_seconds=None, models=["b"])
    assert [key.models for key in list_keys(path)] == [None, {"b"}]
    assert checked(path, new).models == {"b"}
    assert revoke_key(path, id_of(old)).models is None


def test_an_expired_key_leaves_its_place_to_another(path: Path) -> None:
    made(path, seconds=0.001)
    made(path, seconds=0.001)
    time.sleep(0.01)
    assert checked(path, made(path)).name == "anna"


def test_the_store_of_sessions_is_not_taken_for_a_file_of_keys(path: Path) -> None:
    open_store(f"sqlite:///{path}", lifetimes=Lifetimes(), keys=()).close()
    for use in (list_keys, made):
        with pytest.raises(OptionError, match=r"keys\.db cannot be the file of keys: it is something else"):
            use(path)


def test_a_text_is_not_taken_for_a_file_of_keys(path: Path) -> None:
    path.write_text("keys\n" * 1000)
    with pytest.raises(OptionError, match="cannot be the file of keys"):
        list_keys(path)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda path: made(path, ""), "1 to 64 letters"),
        (lambda path: made(path, "a\nb"), "1 to 64 letters"),
        (lambda path: made(path, scopes=()), "without a scope"),
        (lambda path: made(path, scopes=("classify", "root")), "'root' is no scope; there are classify, stream, admin"),
        (lambda path: made(path, models=()), "may ask no model is good for nothing"),
        (lambda path: made(path, models=("all",)), "'all' is no model's name; without a list"),
        (lambda path: made(path, models=("a\nb",)), "is no model's name"),
        (lambda path: made(path, models=("",)), "is no model's name"),
        (lambda path: made(path, seconds=0.0), "more than 0"),
        (lambda path: made(path, seconds=float("nan")), "more than 0"),
        (lambda path: made(path.parent / "no" / "folder"), "No such file"),
        (list_keys, "there is no file of keys at"),
        (lambda path: revoke_key(path, "0" * 12), "there is no file of keys at"),
    ],
)
def test_a_mistake_is_told_and_makes_no_key(path: Path, make: Callable[[Path], object], sentence: str) -> None:
    with pytest.raises(OptionError, match=sentence):
        make(path)
    assert not path.exists()


MAKE_TWENTY = """
import sys, pathlib
from serving.keys import create_key
for number in range(20):
    create_key(pathlib.Path(sys.argv[1]), name=f"{sys.argv[2]} {number}", scopes=["stream"], lifetime_seconds=None)
"""


def test_several_processes_write_into_one_file(path: Path) -> None:
    writers = [subprocess.Popen([sys.executable, "-c", MAKE_TWENTY, str(path), name]) for name in ("a", "b", "c")]
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    assert len(list_keys(path)) == 60


def test_keys_load_neither_a_web_framework_nor_ray_nor_cryptography() -> None:
    assert loaded_by("serving.keys", {"fastapi", "starlette", "ray", "torch", "cryptography"}) == set()


def test_the_digest_is_that_of_the_whole_key(path: Path) -> None:
    text = made(path)
    with sqlite3.connect(path) as connection:
        ((digest,),) = connection.execute("SELECT digest FROM keys").fetchall()
    connection.close()
    assert digest == digest_of(text) and len(digest) == 32


# The command line


def vidseq(*arguments: object) -> Result:
    return CliRunner(env={"COLUMNS": "160"}).invoke(app, ["keys", *map(str, arguments)])


def refused(*arguments: object) -> str:
    error = vidseq(*arguments).exception
    assert isinstance(error, VidseqError), error
    return str(error)


def test_create_prints_the_key_alone_and_says_that_it_is_shown_once(path: Path) -> None:
    run = vidseq("create", "--name", "anna", "--keys", path)
    assert run.exit_code == 0
    assert SHAPE.fullmatch(run.stdout.removesuffix("\n"))
    assert "shown once" in run.stderr and "vsk_" not in run.stderr
    assert checked(path, run.stdout.strip()).scopes == {"classify", "stream"}


def test_create_takes_scopes_and_a_lifetime(path: Path) -> None:
    text = vidseq("create", "--name", "a", "--scopes", "admin, stream", "--expires-in", "30d", "--keys", path).stdout
    key = checked(path, text.strip())
    assert key.scopes == {"admin", "stream"}
    assert key.expires_seconds is not None
    assert key.expires_seconds - key.created_seconds == pytest.approx(30 * 86400)


def test_create_takes_models_and_list_shows_them(path: Path) -> None:
    text = vidseq("create", "--name", "a", "--model", "safety", "--model", "pose", "--keys", path).stdout.strip()
    assert checked(path, text).models == {"safety", "pose"}
    made(path, "ben")
    limited, free = (line for line in vidseq("list", "--keys", path).stdout.splitlines() if " live" in line)
    assert "pose, safety" in limited and " all " in free


def test_list_shows_each_key_and_no_secret(path: Path) -> None:
    live, revoked = made(path, "anna"), made(path, "ben", seconds=3600)
    revoke_key(path, id_of(revoked))
    shown = vidseq("list", "--keys", path).stdout
    for words in ((id_of(live), "anna", "classify", "never", "live"), (id_of(revoked), "ben", "revoked 20")):
        (line,) = [line for line in shown.splitlines() if words[0] in line]
        assert all(word in line for word in words)
    assert "vsk_" not in shown and live[17:] not in shown


def test_revoke_says_whose_key_it_was_and_may_be_said_twice(path: Path) -> None:
    text = made(path)
    for _ in range(2):
        assert f"key {id_of(text)} of anna is revoked" in vidseq("revoke", id_of(text), "--keys", path).stdout
    with pytest.raises(KeyRevoked):
        checked(path, text)


def test_a_key_given_in_place_of_its_id_is_not_repeated(path: Path) -> None:
    text = made(path)
    sentence = refused("revoke", text, "--keys", path)
    assert "by its id" in sentence and text not in sentence
    assert checked(path, text).name == "anna"


@pytest.mark.parametrize("time_", ["30", "d", "-1d", "1.5h", "30 d", "1y"])
def test_what_is_no_time_is_refused_as_it_was_written(path: Path, time_: str) -> None:
    assert f"{time_!r} is no time" in refused("create", "--name", "anna", f"--expires-in={time_}", "--keys", path)


def test_without_a_file_keys_are_kept_in_the_users_own_folder(tmp_path: Path) -> None:
    runner = CliRunner(env={"XDG_DATA_HOME": str(tmp_path / "data"), "VIDSEQ_KEYS": ""})
    text = runner.invoke(app, ["keys", "create", "--name", "anna"]).stdout.strip()
    place = tmp_path / "data/vidseq/keys.db"
    assert checked(place, text).name == "anna"
    assert stat.S_IMODE(place.parent.stat().st_mode) == 0o700


def test_the_environment_may_name_the_file(path: Path) -> None:
    text = CliRunner(env={"VIDSEQ_KEYS": str(path)}).invoke(app, ["keys", "create", "--name", "anna"]).stdout
    assert checked(path, text.strip()).name == "anna"

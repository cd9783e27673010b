"""Who vouches for a model, and what is refused that nobody vouches for, at each door."""

import base64
import json
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from typer.testing import CliRunner

from serving.arguments import ServiceArgs
from serving.check import check
from serving.labeller import Labeller
from serving.launch import begin_check
from tests.running import free_port
from tests.toy_models import hash_again, toy_checkpoint
from vidseq import cli
from vidseq.checkpoint import load_checkpoint, read_info, read_signers, sign_checkpoint
from vidseq.classifier import Classifier
from vidseq.config import Limits
from vidseq.errors import CheckpointError, OptionError
from vidseq.signing import DOMAIN, message_of, read_private_key, read_public_key, write_key_pair


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """anna.pem, anna.pub.pem, and the same of ben and eve."""
    folder = tmp_path_factory.mktemp("keys")
    for name in ("anna", "ben", "eve"):
        write_key_pair(folder / f"{name}.pem", passphrase=None)
    return folder


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return toy_checkpoint(tmp_path / "toy")


def sign(model: Path, private: Path) -> Path:
    sign_checkpoint(model, read_private_key(private, passphrase=None))
    return model


def refused(model: Path, *trusted: Path) -> str:
    with pytest.raises(CheckpointError) as error:
        load_checkpoint(model, trusted_keys=trusted)
    return str(error.value)


def test_a_signed_model_loads_for_whoever_trusts_its_key_and_keeps_its_identity(model: Path, keys: Path) -> None:
    before = read_info(model)
    assert load_checkpoint(sign(model, keys / "anna.pem"), trusted_keys=[keys / "anna.pub.pem"]).info == before
    assert load_checkpoint(model).info == before  # and for whoever asks for none


def test_an_unsigned_model_is_refused(model: Path, keys: Path) -> None:
    assert "is not signed, and a signature by key" in refused(model, keys / "anna.pub.pem")


def test_a_model_signed_by_another_key_is_refused_with_both_ids(model: Path, keys: Path) -> None:
    (eve,) = read_signers(sign(model, keys / "eve.pem"))
    words = refused(model, keys / "anna.pub.pem")
    assert f"is signed by key {eve}, and a signature by key" in words


def test_a_model_that_was_changed_after_it_was_signed_is_refused(model: Path, keys: Path) -> None:
    sign(model, keys / "anna.pem")
    (model / "card.md").write_text("# Better than it is")
    hash_again(model, "card.md")
    load_checkpoint(model)  # the hashes are right
    assert "it was changed since, or the signature is another model's" in refused(model, keys / "anna.pub.pem")


def test_the_signature_of_another_model_is_refused(model: Path, keys: Path, tmp_path: Path) -> None:
    other = sign(toy_checkpoint(tmp_path / "other", seed=1), keys / "anna.pem")
    shutil.copy(other / "signatures.json", model)
    assert "it was changed since, or the signature is another model's" in refused(model, keys / "anna.pub.pem")


def test_one_of_several_pinned_keys_will_do_so_that_keys_can_change(model: Path, keys: Path) -> None:
    sign(model, keys / "ben.pem")
    load_checkpoint(model, trusted_keys=[keys / "anna.pub.pem", keys / "ben.pub.pem"])


def test_several_keys_sign_side_by_side_and_one_key_once(model: Path, keys: Path) -> None:
    for name in ("anna", "ben", "anna"):
        sign(model, keys / f"{name}.pem")
    assert list(read_signers(model).values()) == [True, True]
    for name in ("anna", "ben"):
        load_checkpoint(model, trusted_keys=[keys / f"{name}.pub.pem"])


def test_a_flipped_bit_of_a_signature_is_refused(model: Path, keys: Path) -> None:
    path = sign(model, keys / "anna.pem") / "signatures.json"
    said = json.loads(path.read_text())
    letters = said["signatures"][0]["signature"]
    said["signatures"][0]["signature"] = ("B" if letters[0] == "A" else "A") + letters[1:]
    path.write_text(json.dumps(said))
    assert "it was changed since" in refused(model, keys / "anna.pub.pem")
    assert list(read_signers(model).values()) == [False]


def test_eve_cannot_put_her_signature_under_annas_key(model: Path, keys: Path) -> None:
    path = sign(model, keys / "eve.pem") / "signatures.json"
    eves = json.loads(path.read_text())["signatures"][0]
    annas = json.loads((sign(model, keys / "anna.pem") / "signatures.json").read_text())["signatures"][1]
    path.write_text(json.dumps({"schema": 1, "signatures": [{**eves, "public_key": annas["public_key"]}]}))
    assert "it was changed since" in refused(model, keys / "anna.pub.pem")


@pytest.mark.parametrize("content", ["", "[]", "[" * 50_000, '{"schema": 2, "signatures": []}', '{"signatures": [{}]}'])
def test_a_file_of_signatures_that_is_none_is_refused_where_one_is_asked_for(
    model: Path, keys: Path, content: str
) -> None:
    (model / "signatures.json").write_text(content)
    assert "signatures.json is damaged: it is no list of signatures" in refused(model, keys / "anna.pub.pem")


def test_a_model_is_checked_before_it_is_signed(model: Path, keys: Path) -> None:
    (model / "card.md").write_text("# Changed")
    with pytest.raises(CheckpointError, match=r"card\.md is damaged"):
        sign(model, keys / "anna.pem")
    assert not (model / "signatures.json").exists()


def test_to_trust_nobody_is_a_mistake_and_not_to_trust_everybody(model: Path) -> None:
    with pytest.raises(OptionError, match="a signature is required, and of no key"):
        load_checkpoint(model, trusted_keys=[])
    with pytest.raises(ValueError, match="at least 1 item"):
        ServiceArgs.model_validate({"model": "/model", "open": True, "require_signature": []})


def test_the_message_is_in_a_domain_of_its_own(model: Path, keys: Path) -> None:
    """A signature over the bare manifest, as another tool may have made it, is none of a model."""
    manifest = (model / "manifest.json").read_bytes()
    assert message_of(manifest).startswith(b"vidseq model v1\0") and len(message_of(manifest)) == len(DOMAIN) + 32
    path = sign(model, keys / "anna.pem") / "signatures.json"
    said = json.loads(path.read_text())
    bare = serialization.load_pem_private_key((keys / "anna.pem").read_bytes(), None)
    assert isinstance(bare, ed25519.Ed25519PrivateKey)
    said["signatures"][0]["signature"] = base64.urlsafe_b64encode(bare.sign(manifest)).decode()
    path.write_text(json.dumps(said))
    assert "it was changed since" in refused(model, keys / "anna.pub.pem")


# Keys


def test_a_private_key_is_for_its_owner_alone_and_nothing_is_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "anna.pem"
    public_path, _ = write_key_pair(path, passphrase=None)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    before = path.read_bytes(), public_path.read_bytes()
    with pytest.raises(OptionError, match="exists: choose another name"):
        write_key_pair(path, passphrase=None)
    path.unlink()
    with pytest.raises(OptionError, match=r"anna\.pub\.pem exists"):
        write_key_pair(path, passphrase=None)
    assert not path.exists() and public_path.read_bytes() == before[1]


def test_a_locked_key_opens_with_its_passphrase_only(tmp_path: Path) -> None:
    path = tmp_path / "anna.pem"
    write_key_pair(path, passphrase=b"open sesame")
    read_private_key(path, passphrase=b"open sesame")
    with pytest.raises(OptionError, match="does not open with this passphrase"):
        read_private_key(path, passphrase=b"open barley")
    with pytest.raises(OptionError, match="is locked with a passphrase"):
        read_private_key(path, passphrase=None)


def test_what_is_no_public_key_is_refused_in_a_sentence(keys: Path, tmp_path: Path) -> None:
    other = rsa.generate_private_key(public_exponent=65537, key_size=2048).public_key()
    (tmp_path / "rsa.pem").write_bytes(
        other.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    (tmp_path / "text.pem").write_text("no key")
    for path, words in {
        tmp_path / "rsa.pem": "is a key of another kind: Ed25519 is needed",
        tmp_path / "text.pem": "holds no public key",
        tmp_path / "missing.pem": "cannot be read: No such file",
        keys / "anna.pem": "is a private key, which belongs to nobody else",
    }.items():
        with pytest.raises(OptionError, match=words):
            read_public_key(path)


# Doors


def test_the_library_the_labeller_and_the_check_ask_for_it_alike(model: Path, keys: Path) -> None:
    sign(model, keys / "ben.pem")
    annas, bens = [keys / "anna.pub.pem"], [keys / "ben.pub.pem"]
    for door in (
        lambda: Classifier.load(model, trusted_keys=annas),
        lambda: Labeller(model, name=None, device="cpu", limits=Limits(), trusted_keys=annas),
        lambda: check(model, device="cpu", trusted_keys=annas),
        begin_check(model, device="cpu", require_sandbox=False, trusted_keys=annas),
    ):
        with pytest.raises(CheckpointError, match="is signed by key"):
            door()
    assert begin_check(model, device="cpu", require_sandbox=False, trusted_keys=bens)()


def vidseq(*arguments: object) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "vidseq", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)


@pytest.mark.parametrize(
    "command",
    [
        ("predict", "{model}", "clip.mp4"),
        ("watch", "{model}", "clip.mp4"),
        ("score", "{model}", "{clip}", "--out", "{folder}/rows.jsonl"),
        ("evaluate", "{model}", "{folder}"),
        ("compare", "{model}", "{model}", "{folder}"),
    ],
    ids=lambda command: command[0],
)
def test_every_command_that_loads_a_model_asks_for_a_signature(
    model: Path, keys: Path, tmp_path: Path, command: tuple[str, ...]
) -> None:
    (tmp_path / "clip.mp4").write_bytes(b"never looked at")
    places = {"model": model, "folder": tmp_path, "clip": tmp_path / "clip.mp4"}
    words = [word.format(**places) for word in command]
    run = CliRunner().invoke(cli.app, [*words, "--require-signature", str(keys / "anna.pub.pem")])
    assert isinstance(run.exception, CheckpointError)
    assert "is not signed, and a signature by key" in str(run.exception)


def test_the_service_asks_for_a_signature_before_it_starts_anything(model: Path, keys: Path) -> None:
    port = str(free_port())
    run = vidseq("serve", model, "--port", port, "--require-signature", keys / "anna.pub.pem")
    assert (run.returncode, run.stdout) == (2, "")
    assert "is not signed, and a signature by key" in run.stderr and len(run.stderr.splitlines()) == 1


def test_a_person_makes_a_key_signs_and_sees_who_has_signed(model: Path, tmp_path: Path) -> None:
    key, secret = str(tmp_path / "anna.pem"), {"VIDSEQ_SIGNING_PASSPHRASE": "open sesame"}
    made = CliRunner().invoke(cli.app, ["signing-key", str(tmp_path / "anna"), "--passphrase"], env=secret)
    assert made.exit_code == 0, made.output
    locked = CliRunner().invoke(cli.app, ["sign", str(model), "--key", key])
    assert "nobody can be asked here" in str(locked.exception)
    assert "signed by key" in CliRunner().invoke(cli.app, ["sign", str(model), "--key", key], env=secret).output
    (key_id,) = read_signers(model)
    assert key_id in made.output
    assert key_id in CliRunner().invoke(cli.app, ["models", str(model.parent)], env={"COLUMNS": "200"}).output

"""What is sealed opens for whom it was meant, in its time; whatever else is presented is refused in a sentence."""

import base64
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.sealing import MAX_PAYLOAD_BYTES, SealBroken, Tokens, Vault, load_keys, new_key
from vidseq.errors import OptionError, TokenError

KEYS = load_keys(new_key())
OTHER = load_keys(new_key())
VAULT = Vault(KEYS)
TOKENS = Tokens(KEYS)


def token(payload: bytes = b"payload", *, owner: str = "ann", lifetime_seconds: float = 60.0) -> str:
    return TOKENS.seal(payload, owner=owner, lifetime_seconds=lifetime_seconds)


def flipped(data: bytes, bit: int) -> bytes:
    """The same bytes with one bit of them turned."""
    place, within = divmod(bit % (8 * len(data)), 8)
    return data[:place] + bytes([data[place] ^ 1 << within]) + data[place + 1 :]


# Keys ------------------------------------------------------------------------------------------------


def test_a_new_key_is_a_key_and_never_the_same_twice() -> None:
    assert len(load_keys(new_key())[0]) == 32
    assert new_key() != new_key()


@pytest.mark.parametrize(
    "text",
    [
        "fb" * 32,
        base64.b64encode(b"\xfb" * 32).decode(),
        base64.urlsafe_b64encode(b"\xfb" * 32).decode(),
        base64.urlsafe_b64encode(b"\xfb" * 32).decode().rstrip("="),
    ],
    ids=["hex", "base64", "URL-safe", "without padding"],
)
def test_a_key_may_be_written_as_hex_or_base64(text: str) -> None:
    assert load_keys(text) == (b"\xfb" * 32,)


def test_several_keys_are_read_from_a_file_in_their_order(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text(f"{b'a'.hex() * 32}\n\n{b'b'.hex() * 32}\n")
    assert load_keys(path) == (b"a" * 32, b"b" * 32)


@pytest.mark.parametrize("text", ["", " \n", "hunter2", "hunter2!", "a" * 63, "z" * 64, "é" * 43, new_key() + "AAAA"])
def test_what_is_no_key_is_refused_without_repeating_it(text: str) -> None:
    with pytest.raises(OptionError, match="key") as caught:
        load_keys(text)
    assert not text.strip() or text not in str(caught.value)


def test_the_key_that_is_wrong_is_numbered() -> None:
    with pytest.raises(OptionError, match=r"key 2 of 2 has 3 bytes; 32 are needed"):
        load_keys(f"{new_key()} AAAA")


def test_a_file_of_keys_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="keys cannot be read: No such file"):
        load_keys(tmp_path / "keys")


def test_a_file_of_keys_that_is_not_text_is_named(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(OptionError, match="keys cannot be read: it is not text"):
        load_keys(path)


# At rest ---------------------------------------------------------------------------------------------


@given(content=st.binary(max_size=2000), name=st.text(max_size=50))
def test_what_was_sealed_opens_under_its_name(content: bytes, name: str) -> None:
    assert VAULT.open(VAULT.seal(content, name=name), name=name) == content


@given(content=st.binary(max_size=200), bit=st.integers(min_value=0))
def test_any_flipped_bit_of_what_was_sealed_is_refused(content: bytes, bit: int) -> None:
    sealed = flipped(VAULT.seal(content, name="s"), bit)
    with pytest.raises(SealBroken):
        VAULT.open(sealed, name="s")


@given(garbage=st.binary(max_size=200))
def test_what_was_never_sealed_is_refused(garbage: bytes) -> None:
    with pytest.raises(SealBroken):
        VAULT.open(garbage, name="s")


@given(content=st.binary(min_size=1, max_size=200), cut=st.integers(min_value=1))
def test_what_was_cut_short_is_refused(content: bytes, cut: int) -> None:
    sealed = VAULT.seal(content, name="s")
    with pytest.raises(SealBroken):
        VAULT.open(sealed[: -1 - cut % (len(sealed) - 1)], name="s")


def test_what_was_sealed_opens_under_no_other_name() -> None:
    with pytest.raises(SealBroken, match="'state 1 of b'"):
        VAULT.open(VAULT.seal(b"content", name="state 1 of a"), name="state 1 of b")


def test_the_same_content_never_looks_the_same() -> None:
    sealed = {VAULT.seal(b"content" * 10, name="s") for _ in range(100)}
    assert len(sealed) == len({one[-16:] for one in sealed}) == 100
    assert not any(b"content" in one for one in sealed)


def test_of_several_keys_the_first_seals_and_each_opens() -> None:
    both = Vault(KEYS + OTHER)
    assert both.open(Vault(OTHER).seal(b"old", name="s"), name="s") == b"old"
    assert VAULT.open(both.seal(b"new", name="s"), name="s") == b"new"
    with pytest.raises(SealBroken):
        Vault(OTHER).open(both.seal(b"new", name="s"), name="s")


# Tokens ----------------------------------------------------------------------------------------------


@given(payload=st.binary(max_size=2000), owner=st.text(max_size=50))
def test_a_token_opens_for_its_owner(payload: bytes, owner: str) -> None:
    assert TOKENS.open(token(payload, owner=owner), owner=owner) == payload


def test_a_token_may_stand_in_a_url_and_shows_nothing() -> None:
    text = token(b"payload" * 100)
    assert set(text) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")
    assert b"payload" not in base64.urlsafe_b64decode(text + "==")


@given(bit=st.integers(min_value=0))
def test_any_flipped_bit_of_a_token_is_refused(bit: int) -> None:
    changed = flipped(token().encode(), bit).decode("latin-1")
    with pytest.raises(TokenError):
        TOKENS.open(changed, owner="ann")


@given(text=st.text(max_size=200))
def test_a_text_that_is_no_token_is_refused(text: str) -> None:
    with pytest.raises(TokenError):
        TOKENS.open(text, owner="ann")


@pytest.mark.parametrize("addition", ["=", "==", "A", "\n", " ", "\ud800", "\0"])
def test_a_token_with_something_added_is_refused(addition: str) -> None:
    for changed in (token() + addition, addition + token()):
        with pytest.raises(TokenError):
            TOKENS.open(changed, owner="ann")


@pytest.mark.parametrize("owner", ["", "bob", "ann "])
def test_a_token_of_another_owner_is_refused(owner: str) -> None:
    with pytest.raises(TokenError, match="not one of this service and this caller"):
        TOKENS.open(token(), owner=owner)


def test_a_token_of_another_service_is_refused() -> None:
    with pytest.raises(TokenError, match="not one of this service"):
        Tokens(OTHER).open(token(), owner="ann")


def test_a_token_outlives_a_change_of_keys_while_the_old_one_is_listed() -> None:
    assert Tokens(OTHER + KEYS).open(token(), owner="ann") == b"payload"


def test_what_the_store_sealed_with_the_same_key_is_no_token() -> None:
    stolen = base64.urlsafe_b64encode(VAULT.seal(b"\x7f" * 100, name="ann")).decode().rstrip("=")
    with pytest.raises(TokenError):
        TOKENS.open(stolen, owner="ann")


def test_an_expired_token_is_refused_and_says_so() -> None:
    late = token(lifetime_seconds=-100.0)
    with pytest.raises(TokenError, match=r"expired 1\d\d seconds ago"):
        TOKENS.open(late, owner="ann")


def test_the_largest_token_opens_and_a_longer_text_is_refused_unread() -> None:
    largest = token(b"x" * MAX_PAYLOAD_BYTES)
    assert TOKENS.open(largest, owner="ann") == b"x" * MAX_PAYLOAD_BYTES
    with pytest.raises(TokenError, match=r"10,000,000 letters; at most 174,\d\d\d are allowed"):
        TOKENS.open("A" * 10_000_000, owner="ann")


def test_a_token_is_the_same_for_every_process_with_the_key() -> None:
    assert Tokens(load_keys(KEYS[0].hex())).open(token(), owner="ann") == b"payload"

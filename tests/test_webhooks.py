"""What is sent to a webhook: signed as the specification says, to public addresses alone, never further."""

import base64
import os
import socket
import time
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.jobs.addresses import address_of, is_public, refuse_unsafe
from serving.jobs.errors import WebhookNotAllowed
from vidseq.errors import OptionError, WebhookRefused
from vidseq.webhooks import SIGNATURE, TIMESTAMP, check, headers, key_of, new_secret

SECRET = new_secret()
BODY = b'{"type":"job.succeeded"}'


def signed(body: bytes = BODY, *, secret: str = SECRET, age_seconds: int = 0) -> dict[str, str]:
    return headers("msg_1", body, secret=secret, timestamp=int(time.time()) - age_seconds)


def test_a_signature_is_that_of_the_specifications_own_example() -> None:
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    told = headers("msg_p5jXN8AQM9LWM0D4loKWxJek", b'{"test": 2432232314}', secret=secret, timestamp=1614265330)
    assert told[SIGNATURE] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@given(st.binary(max_size=200), st.integers(-200, 200))
def test_what_was_signed_is_let_through_in_its_time(body: bytes, age_seconds: int) -> None:
    check(body, signed(body, age_seconds=age_seconds), secret=SECRET)


@given(st.binary(max_size=50), st.data())
def test_a_changed_body_is_refused(body: bytes, data: st.DataObject) -> None:
    other = data.draw(st.binary(max_size=50).filter(lambda other: other != body))
    with pytest.raises(WebhookRefused, match="was changed"):
        check(other, signed(body), secret=SECRET)


@pytest.mark.parametrize("age_seconds", [301 + 5, -301 - 5])
def test_an_old_message_and_one_of_the_future_are_refused(age_seconds: int) -> None:
    with pytest.raises(WebhookRefused, match="more than 300 seconds"):
        check(BODY, signed(age_seconds=age_seconds), secret=SECRET)


def test_one_of_several_signatures_is_enough_as_while_a_secret_is_changed() -> None:
    told = signed()
    told[SIGNATURE] = f"{signed(secret=new_secret())[SIGNATURE]} {told[SIGNATURE]} v2,zzz"
    check(BODY, {name.title(): value for name, value in told.items()}, secret=SECRET)


@pytest.mark.parametrize(
    "odd", ["", "v1,", "v1", "v1,ü", "v2,g0hM9SsE", "\udcff", "v1," + "A" * 10_000, " ", "v1, v1,"]
)
def test_an_odd_signature_is_refused_and_nothing_else_is_raised(odd: str) -> None:
    with pytest.raises(WebhookRefused):
        check(BODY, signed() | {SIGNATURE: odd}, secret=SECRET)


@pytest.mark.parametrize("odd", ["", "now", "-1", "1e9", "٣", "9" * 5000, " 1"])
def test_an_odd_timestamp_is_refused_and_nothing_else_is_raised(odd: str) -> None:
    with pytest.raises(WebhookRefused):
        check(BODY, signed() | {TIMESTAMP: odd}, secret=SECRET)


@pytest.mark.parametrize(
    "secret", ["", "whsec_", "whsec_" + "A" * 8, "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "whsec_ü", "whsec_" + "A" * 400]
)
def test_a_secret_that_is_none_is_refused_and_not_repeated(secret: str) -> None:
    with pytest.raises(OptionError) as refused:
        key_of(secret)
    assert secret.removeprefix("whsec_") not in str(refused.value) or len(secret) < 8


def test_a_secret_has_as_many_bytes_as_it_must() -> None:
    assert len(key_of(SECRET)) == 32
    for num_bytes, fits in [(23, False), (24, True), (64, True), (65, False)]:
        secret = "whsec_" + base64.b64encode(os.urandom(num_bytes)).decode()
        if fits:
            assert len(key_of(secret)) == num_bytes
        else:
            with pytest.raises(OptionError):
                key_of(secret)


# Where it may go ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "0.0.0.0", "100.64.0.1", "224.0.0.1",
        "255.255.255.255", "240.0.0.1", "198.18.0.1", "::1", "::", "fe80::1", "fd00::1", "ff02::1", "::ffff:127.0.0.1",
        "::ffff:169.254.169.254", "64:ff9b::7f00:1", "64:ff9b::101:101", "2002:7f00:1::1", "2001:0:0:0:0:0:80ff:fffe",
    ],
)  # fmt: skip
def test_an_address_that_only_some_can_reach_is_not_public(address: str) -> None:
    assert not is_public(ip_address(address))


@pytest.mark.parametrize("address", ["1.1.1.1", "93.184.216.34", "2606:4700::1111"])
def test_an_address_that_everybody_can_reach_is_public(address: str) -> None:
    assert is_public(ip_address(address))


@pytest.mark.parametrize("url", ["http://example.org/hook", "https://127.0.0.1/hook", "https://[::1]:8000/hook"])
def test_what_a_url_says_itself_is_refused_before_anything_is_looked_up(url: str) -> None:
    with pytest.raises(WebhookNotAllowed):
        refuse_unsafe(url, allow_private=False)
    refuse_unsafe(url, allow_private=True)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.1", "0x7f.1", "2130706433"])
def test_a_name_of_this_machine_is_refused_however_it_is_written(host: str) -> None:
    with pytest.raises((WebhookNotAllowed, socket.gaierror)):
        address_of(host, 443, allow_private=False)


def test_where_private_addresses_are_allowed_this_machine_is_one() -> None:
    assert address_of("127.0.0.1", 80, allow_private=True) == ip_address("127.0.0.1")

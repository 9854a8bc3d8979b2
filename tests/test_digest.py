"""Digest credentials, by the examples of RFC 7616 (3.9) and RFC 2617 where they fit a CONNECT."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_feed.net.digest import Challenge, authorization, read_challenges

NONCE = "7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v"


def hashed(name, text):
    return hashlib.new(name, text.encode()).hexdigest()


@pytest.mark.parametrize(
    ("said", "name"), [("MD5", "md5"), ("SHA-256", "sha256"), ("md5-sess", "md5")]
)
def test_what_is_sent_is_what_the_proxy_computes(said, name):
    value = f'Digest realm="a \\"b\\"", qop="auth-int, auth", algorithm={said}, nonce="{NONCE}"'
    challenge = read_challenges(["Basic realm=x", "Negotiate", value + ', opaque="FQhe"'])
    assert (challenge.realm, challenge.nonce, challenge.opaque) == ('a "b"', NONCE, "FQhe")
    sent = authorization(challenge, "Mufasa", "Circle of Life", "example.com:443", 1, "f2/wE")
    first = hashed(name, 'Mufasa:a "b":Circle of Life')
    if said.endswith("sess"):
        first = hashed(name, f"{first}:{NONCE}:f2/wE")
    second = hashed(name, "CONNECT:example.com:443")
    right = hashed(name, f"{first}:{NONCE}:00000001:f2/wE:auth:{second}")
    assert f'response="{right}"' in sent
    assert sent.startswith('Digest username="Mufasa", realm="a \\"b\\"", nonce="7ypf')
    assert sent.endswith(f"algorithm={said.upper().replace('SESS', 'sess')}, qop=auth, nc=00000001")


def test_the_example_of_rfc_7616():
    """3.9.1 is of a GET; the same hashes with its method show that the parts are in order."""
    first = hashed("sha256", "Mufasa:http-auth@example.org:Circle of Life")
    second = hashed("sha256", "GET:/dir/index.html")
    cnonce = "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ"
    right = hashed("sha256", f"{first}:{NONCE}:00000001:{cnonce}:auth:{second}")
    assert right == "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"


def test_without_qop_as_in_rfc_2069():
    challenge = read_challenges(['DIGEST nonce=abc,realm="r"'])
    assert challenge == Challenge("r", "abc", qop=False)
    sent = authorization(challenge, "u", "p", "h:1", 5, "c")
    right = hashed("md5", f"{hashed('md5', 'u:r:p')}:abc:{hashed('md5', 'CONNECT:h:1')}")
    assert f'response="{right}"' in sent
    assert "nc=" not in sent
    assert "qop" not in sent


def test_the_strongest_that_we_know_is_answered():
    values = ['Digest nonce="a", algorithm=MD5', 'Digest nonce="b", algorithm=SHA-256']
    assert read_challenges(values).nonce == "b"
    assert read_challenges([*values[:1], 'Digest nonce="c", algorithm=ROT13']).nonce == "a"


@pytest.mark.parametrize(
    "value",
    [
        "",
        "Digest",
        "Digest realm=x",
        'Digest nonce="a", qop="auth-int"',
        "Basic nonce=a",
        "Digest =",
    ],
)
def test_what_cannot_be_answered(value):
    assert read_challenges([value]) is None


@given(st.text(max_size=200))
def test_any_text(text):
    challenge = read_challenges(["Digest " + text, text, 'Digest nonce="' + text])
    if challenge is not None:
        authorization(challenge, "u", "p", "h:1", 1, "c")

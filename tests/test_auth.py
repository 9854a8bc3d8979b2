"""Keys and tokens: who is let in, and that no attempt leaves a trace of the token."""

import base64
import hmac
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from hypothesis import given, settings
from hypothesis import strategies as st

from trio_feed.cli import main
from trio_feed.errors import SettingsError
from trio_feed.push.private.auth import (
    PUBLISHER_KEY,
    USER_KEY,
    Authenticator,
    AuthError,
    Publishers,
    names_token,
    new_key,
)
from trio_feed.settings import (
    ApiKeySettings,
    AuthSettings,
    JwtSettings,
    PublisherSettings,
    Secret,
    load,
)

NOW_S = 1_760_000_000
NOW_MS = NOW_S * 1000.0
SECRET = "a secret of sixty-four bytes or more, so that every HMAC takes it as it is"
HOUR = {"sub": "1001", "exp": NOW_S + 3600}

PEM = serialization.Encoding.PEM
ED = ed25519.Ed25519PrivateKey.generate()
RSA = rsa.generate_private_key(65537, 2048)


def public_pem(key: Any) -> bytes:
    pem: bytes = key.public_key().public_bytes(PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return pem


def checker(**more: Any) -> Authenticator:
    chosen = {"algorithm": "HS256", "secret": Secret(SECRET), **more}
    return Authenticator(AuthSettings(jwt=JwtSettings(**chosen)))


def asymmetric(tmp_path: Path, algorithm: str, key: Any) -> Authenticator:
    (tmp_path / "key.pem").write_bytes(public_pem(key))
    return checker(algorithm=algorithm, secret=Secret(), key_file=str(tmp_path / "key.pem"))


def token(key: Any = SECRET, algorithm: str = "HS256", **claims: Any) -> str:
    return jwt.encode({**HOUR, **claims}, key, algorithm=algorithm)


def part(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def refused(authenticator: Authenticator, text: str, now_ms: float = NOW_MS) -> str:
    with pytest.raises(AuthError) as caught:
        authenticator.authenticate(Secret(text), now_ms)
    reason = str(caught.value)
    assert not text or text not in reason
    assert all(piece not in reason for piece in text.split(".") if len(piece) > 8)
    return reason


def test_an_api_key_opens_its_users_events() -> None:
    (key, digest), (other, other_digest) = new_key(USER_KEY), new_key(USER_KEY)
    authenticator = Authenticator(
        AuthSettings(
            api_keys=(
                ApiKeySettings("alice", 1001, digest),
                ApiKeySettings("bob", 1002, other_digest),
            )
        )
    )
    found = authenticator.authenticate(Secret(key), NOW_MS)
    assert (found.user_id, found.name, found.expires_ms) == (1001, "alice", None)
    assert authenticator.authenticate(Secret(other), NOW_MS).user_id == 1002
    assert refused(authenticator, key[:-1] + "x") == "the API key is not known"
    assert (
        refused(authenticator, digest) == "the token is not an API key, and no JWT is accepted here"
    )
    assert len(key) > 43 + 3


def test_every_key_is_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """A loop that stops at the first hit would tell how far down the list a key stands."""
    pairs = [new_key(USER_KEY) for _ in range(5)]
    keys = tuple(ApiKeySettings(f"k{n}", n + 1, digest) for n, (_, digest) in enumerate(pairs))
    authenticator = Authenticator(AuthSettings(api_keys=keys))
    seen = []
    monkeypatch.setattr(
        "trio_feed.push.private.auth.hmac.compare_digest", lambda a, b: seen.append(a) or a == b
    )
    for key, _ in pairs:
        authenticator.authenticate(Secret(key), NOW_MS)
    assert len(seen) == 25


def test_publishers() -> None:
    key, digest = new_key(PUBLISHER_KEY)
    publishers = Publishers([PublisherSettings("engine", digest)])
    assert publishers.authenticate(f"Bearer {key}") == "engine"
    assert publishers.authenticate(f"bearer {key}") == "engine"
    for wrong in (
        "",
        "Bearer",
        "Bearer ",
        f"Basic {key}",
        f"Bearer {key}x",
        f"Bearer {digest}",
        "Bearer \xff",
    ):
        with pytest.raises(AuthError) as caught:
            publishers.authenticate(wrong)
        assert key not in str(caught.value)


@pytest.mark.parametrize("subject", ["1001", 1001])
def test_hs256(subject: Any) -> None:
    found = checker().authenticate(Secret(token(sub=subject)), NOW_MS)
    assert (found.user_id, found.expires_ms) == (1001, (NOW_S + 3600) * 1000)


def test_eddsa_and_rs256(tmp_path: Path) -> None:
    for algorithm, key in (("EdDSA", ED), ("RS256", RSA)):
        authenticator = asymmetric(tmp_path, algorithm, key)
        assert authenticator.authenticate(Secret(token(key, algorithm)), NOW_MS).user_id == 1001
        wrong = (
            ed25519.Ed25519PrivateKey.generate()
            if key is ED
            else rsa.generate_private_key(65537, 2048)
        )
        assert refused(authenticator, token(wrong, algorithm)) == "the token's signature is wrong"


def test_hs256_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(SECRET + "\n")
    authenticator = checker(secret=Secret(), key_file=str(tmp_path / "secret"))
    assert authenticator.authenticate(Secret(token()), NOW_MS).user_id == 1001


@pytest.mark.parametrize("alg", ["none", "None", "NONE", "", None, ["HS256"], {"a": 1}, 5])
def test_no_signature_no_entry(alg: Any, tmp_path: Path) -> None:
    for authenticator in (checker(), asymmetric(tmp_path, "EdDSA", ED)):
        for signature in ("", "AAAA"):
            refused(authenticator, f"{part({'alg': alg, 'typ': 'JWT'})}.{part(HOUR)}.{signature}")
    refused(checker(), f"{part({'typ': 'JWT'})}.{part(HOUR)}.")


def test_the_public_key_is_no_shared_secret(tmp_path: Path) -> None:
    """The classic: sign with HS256, the published public key as the secret."""
    for algorithm, key in (("EdDSA", ED), ("RS256", RSA)):
        authenticator = asymmetric(tmp_path, algorithm, key)
        signed = f"{part({'alg': 'HS256', 'typ': 'JWT'})}.{part(HOUR)}"
        for secret in (public_pem(key), public_pem(key).strip()):
            mac = hmac.digest(secret, signed.encode(), "sha256")
            forged = f"{signed}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"
            assert refused(authenticator, forged) == f"the token's algorithm is not {algorithm}"


def test_other_algorithms_of_the_same_key_are_refused() -> None:
    assert refused(checker(), token(algorithm="HS384")) == "the token's algorithm is not HS256"


def test_times() -> None:
    strict = checker(leeway_s=0.0)
    assert refused(strict, token(exp=NOW_S)) == "the token has expired"
    assert strict.authenticate(Secret(token(exp=NOW_S + 1)), NOW_MS).user_id == 1001
    lenient = checker(leeway_s=10.0)
    assert lenient.authenticate(Secret(token(exp=NOW_S - 9)), NOW_MS).user_id == 1001
    assert refused(lenient, token(exp=NOW_S - 10)) == "the token has expired"
    assert refused(strict, token(nbf=NOW_S + 1)) == "the token is not valid yet"
    assert strict.authenticate(Secret(token(nbf=NOW_S)), NOW_MS).user_id == 1001
    eternal = jwt.encode({"sub": "1001"}, SECRET, "HS256")
    assert refused(strict, eternal) == "the token has no exp"


@pytest.mark.parametrize("exp", ["soon", True, -1, 10**30, [], {}, "1"])
def test_an_odd_time_is_no_time(exp: Any) -> None:
    refused(checker(), raw({"sub": "1", "exp": exp}))


@pytest.mark.parametrize("text", ["NaN", "Infinity", "1e999", "9" * 5000])
def test_numbers_that_only_python_reads(text: str) -> None:
    refused(checker(), signed(part({"alg": "HS256"}), f'{{"sub":"1","exp":{text}}}'))


def raw(claims: Any) -> str:
    return signed(part({"alg": "HS256", "typ": "JWT"}), json.dumps(claims))


def signed(head: str, payload: str) -> str:
    body = f"{head}.{base64.urlsafe_b64encode(payload.encode()).rstrip(b'=').decode()}"
    mac = hmac.digest(SECRET.encode(), body.encode(), "sha256")
    return f"{body}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"


@pytest.mark.parametrize("sub", ["", "abc", "-1", "0", 0, 1.5, True, None, "²", "9" * 19, ["1"]])
def test_a_user_is_a_number(sub: Any) -> None:
    refused(checker(), raw({"sub": sub, "exp": NOW_S + 60}))


def test_audience_and_issuer() -> None:
    authenticator = checker(audience="feed", issuer="login")
    good = {"aud": ["x", "feed"], "iss": "login"}
    assert authenticator.authenticate(Secret(token(**good)), NOW_MS).user_id == 1001
    assert "audience" in refused(authenticator, token(**good | {"aud": "other"}))
    assert "issuer" in refused(authenticator, token(**good | {"iss": "other"}))
    assert refused(authenticator, token(iss="login")) == "the token has no aud"
    assert refused(authenticator, token(aud="feed")) == "the token has no iss"
    assert "audience" in refused(checker(), token(aud="somebody else"))


def test_another_claim_for_the_user() -> None:
    authenticator = checker(user_claim="uid")
    assert authenticator.authenticate(Secret(token(uid=7)), NOW_MS).user_id == 7
    assert refused(authenticator, token()) == "the token has no uid"


@pytest.mark.parametrize(
    "text", ["", ".", "..", "a.b.c", "é" * 10, "x" * 9000, "[" * 4000 + ".e30.", "\x00", "🔑"]
)
def test_rubbish(text: str) -> None:
    refused(checker(), text)
    deep = base64.urlsafe_b64encode(b"[" * 5000).decode()
    refused(checker(), f"{deep}.e30.AAAA")
    refused(checker(), signed(part({"alg": "HS256"}), "[" * 5000))


GOOD = token()


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_a_damaged_token_is_an_auth_error_and_nothing_else(data: st.DataObject) -> None:
    authenticator = checker()
    at = data.draw(st.integers(0, len(GOOD) - 1))
    text = GOOD[:at] + data.draw(st.text(max_size=5)) + GOOD[at + data.draw(st.integers(0, 9)) :]
    if text == GOOD:
        return
    with suppress(AuthError):
        found = authenticator.authenticate(Secret(text), NOW_MS)
        # Only bits that base64 ignores may differ in what is let in.
        assert found.user_id == 1001
        assert text.split(".")[:2] == GOOD.split(".")[:2]


def test_tokens_in_urls_are_noticed() -> None:
    assert names_token({"token": "x"}) == "token"
    assert names_token({"Access_Token": "x"}) == "Access_Token"
    assert names_token({"q": new_key(USER_KEY)[0]}) == "?"
    assert names_token({"symbol": "BTCUSDT"}) is None


def test_key_files_that_cannot_be_used(tmp_path: Path) -> None:
    path = tmp_path / "k"
    cases: list[tuple[str, bytes | None, str]] = [
        ("EdDSA", None, "No such file"),
        ("EdDSA", b"rubbish", "no public key"),
        ("EdDSA", public_pem(RSA), "no key for EdDSA"),
        ("RS256", public_pem(ED), "no key for RS256"),
        ("RS256", public_pem(rsa.generate_private_key(65537, 1024)), "2048 bits"),
        ("HS256", b"short", "32 bytes"),
        ("HS256", public_pem(RSA), "32 bytes"),
    ]  # fmt: skip
    private = ED.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    cases.append(("EdDSA", private, "no public key"))
    for algorithm, content, problem in cases:
        path.unlink(missing_ok=True)
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(SettingsError, match=problem) as caught:
            checker(algorithm=algorithm, secret=Secret(), key_file=str(path))
        assert caught.value.path == "auth.jwt.key_file"


@pytest.mark.parametrize(
    ("assignments", "path"),
    [
        (["auth.jwt.algorithm=none"], "auth.jwt.algorithm"),
        (["auth.jwt.algorithm=HS256"], "auth.jwt.secret"),
        (["auth.jwt.algorithm=HS256", "auth.jwt.secret=short"], "auth.jwt.secret"),
        (["auth.jwt.secret=" + SECRET], "auth.jwt.algorithm"),
        (["auth.jwt.algorithm=EdDSA"], "auth.jwt.key_file"),
        (["auth.jwt.algorithm=EdDSA", "auth.jwt.secret=" + SECRET], "auth.jwt.secret"),
        (["auth.api_keys=[{name='a', user_id=1, sha256='x'}]"], "auth.api_keys.0.sha256"),
        (["auth.api_keys=[{name='a', sha256='" + "0" * 64 + "'}]"], "auth.api_keys.0.user_id"),
        (["settlement.publishers=[{sha256='" + "0" * 64 + "'}]"], "settlement.publishers.0.name"),
    ],
)
def test_settings_that_are_wrong(assignments: list[str], path: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load(assignments=assignments)
    assert caught.value.path == path
    assert SECRET not in str(caught.value)
    assert "short" not in str(caught.value).split()


@pytest.mark.parametrize(
    "words", [["--user", "1001"], ["--publisher"], ["--publisher", "--broadcast"]]
)
def test_the_key_command_prints_what_the_settings_take(
    words: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["key", *words, "--name", "alice"]) == 0
    out = capsys.readouterr().out
    (tmp_path / "keys.toml").write_text(out)
    settings = load([tmp_path / "keys.toml"])
    key = out.split("\n")[0].split()[-1]
    if words[0] == "--publisher":
        (publisher,) = settings.settlement.publishers
        assert publisher.broadcast is ("--broadcast" in words)
        assert Publishers(settings.settlement.publishers).authenticate(f"Bearer {key}") == "alice"
    else:
        assert Authenticator(settings.auth).authenticate(Secret(key), NOW_MS).user_id == 1001


def test_the_key_command_says_what_it_wants(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (
        ["key"], ["key", "--user", "0"], ["key", "--user", "1", "--name", 'a"b'],
        ["key", "--user", "1", "--broadcast"],
    ):  # fmt: skip
        with pytest.raises(SystemExit):
            main(words)
    assert "is not a user's number" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("claims", "good"),
    [
        ({"sub": str(2**63 - 1)}, True), ({"sub": str(2**63)}, False), ({"sub": 2**63 - 1}, True),
        ({"sub": 2**63}, False), ({"sub": 1}, True), ({"sub": "0" * 18 + "1"}, True),
        ({"sub": "0" * 19 + "1"}, False), ({"exp": 4 * 10**9}, True),
        ({"exp": 4 * 10**9 + 1}, False), ({"exp": NOW_S + 0.5}, True), ({"nbf": None}, True),
        ({"nbf": 0}, True), ({"nbf": -1}, False), ({"nbf": "x"}, False),
    ],
)  # fmt: skip
def test_claims_at_their_edges(claims: dict[str, Any], good: bool) -> None:
    strict, text = checker(leeway_s=0.0), raw({**HOUR, **claims})
    if good:
        found = strict.authenticate(Secret(text), NOW_MS)
        exp = claims.get("exp", HOUR["exp"])
        assert (found.name, found.expires_ms) == ("jwt", int(exp * 1000))
        assert found.user_id == int(claims.get("sub", 1001))
    else:
        refused(strict, text)


def test_the_leeway_counts_at_both_ends() -> None:
    lenient = checker(leeway_s=10.0)
    found = lenient.authenticate(Secret(token(exp=NOW_S + 5)), NOW_MS)
    assert (found.expires_ms, found.ends_ms) == ((NOW_S + 5) * 1000, (NOW_S + 15) * 1000)
    assert lenient.authenticate(Secret(token(nbf=NOW_S + 10)), NOW_MS).user_id == 1001
    assert refused(lenient, token(nbf=NOW_S + 11)) == "the token is not valid yet"


def test_how_long_a_token_may_be() -> None:
    """8192 characters; the longest is looked at, and fails for another reason."""
    authenticator = Authenticator(AuthSettings())
    longest = "x" * 8192
    assert "no JWT is accepted here" in refused(authenticator, longest)
    assert refused(authenticator, longest + "x") == "the token is neither an API key nor a JWT"


@pytest.mark.parametrize(("length", "good"), [(31, False), (32, True)])
def test_how_short_a_secret_in_a_file_may_be(tmp_path: Path, length: int, good: bool) -> None:
    file = tmp_path / "secret"
    file.write_text("s" * length + "\n")
    if good:
        checker(secret=Secret(), key_file=str(file))
    else:
        with pytest.raises(SettingsError, match="32 bytes or more"):
            checker(secret=Secret(), key_file=str(file))


@pytest.mark.parametrize(
    ("query", "name"),
    [
        ({"Token": "x"}, "Token"), ({"api-key": ""}, "api-key"), ({"x": USER_KEY}, "?"),
        ({"x": PUBLISHER_KEY + "y"}, "?"), ({"x": "y" + USER_KEY}, None), ({"tok": "x"}, None),
        ({"a": "b", "JWT": "x"}, "JWT"), ({"auth": USER_KEY}, "auth"), ({}, None),
    ],
)  # fmt: skip
def test_which_parameter_names_a_token(query: dict[str, str], name: str | None) -> None:
    assert names_token(query) == name


def test_the_last_key_of_several_counts_for_its_own_user() -> None:
    pairs = [new_key(PUBLISHER_KEY) for _ in range(3)]
    publishers = Publishers([PublisherSettings(f"p{n}", d) for n, (_, d) in enumerate(pairs)])
    assert [publishers.authenticate(f"Bearer  {key} ") for key, _ in pairs] == ["p0", "p1", "p2"]

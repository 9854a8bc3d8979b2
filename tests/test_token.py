"""``token``: what it issues is what the service accepts."""

import json
from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from trio_feed.cli import main
from trio_feed.push.private.auth import Authenticator
from trio_feed.settings import AuthSettings, JwtSettings, Secret

SECRET = "0123456789abcdef0123456789abcdef"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def words(*assignments: str) -> list[str]:
    return [word for each in assignments for word in ("--set", each)]


def test_a_shared_secret(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sets = words(
        "auth.jwt.algorithm=HS256", f"auth.jwt.secret={SECRET}", "auth.jwt.audience=me",
        "auth.jwt.issuer=test", "auth.jwt.user_claim=uid",
    )  # fmt: skip
    assert main(["token", "--user", "1001", "--expires", "90s", "--json", *sets]) == 0
    told = json.loads(capsys.readouterr().out)
    claims = jwt.decode(told["token"], SECRET, ["HS256"], audience="me", issuer="test")
    assert claims["uid"] == "1001"
    assert claims["exp"] * 1000 == told["expires_ms"]
    assert main(["token", "--user", "7", *sets]) == 0
    text = capsys.readouterr().out.strip()
    settings = AuthSettings(
        jwt=JwtSettings("HS256", Secret(SECRET), audience="me", issuer="test", user_claim="uid")
    )
    now_ms = jwt.decode(text, options={"verify_signature": False})["exp"] * 1000 - 3_000_000
    assert Authenticator(settings).authenticate(Secret(text), now_ms).user_id == 7


def pair(algorithm: str) -> Ed25519PrivateKey | RSAPrivateKey:
    if algorithm == "EdDSA":
        return Ed25519PrivateKey.generate()
    return generate_private_key(65537, 2048)


@pytest.mark.parametrize("algorithm", ["EdDSA", "RS256"])
def test_a_pair_of_keys(algorithm: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own, other = pair(algorithm), pair(algorithm)
    (folder / "odd").write_text("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")
    for name, key in (("own", own), ("other", other)):
        (folder / name).write_bytes(
            key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        )
    (folder / "public").write_bytes(
        own.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    )
    sets = words(f"auth.jwt.algorithm={algorithm}", "auth.jwt.key_file=public")
    ask = ["token", "--user", "7", *sets]
    assert main([*ask, "--private-key", "own"]) == 0
    assert capsys.readouterr().out.count(".") == 2
    for more, line in (
        ([], f"token: {algorithm} wants the private key to sign with"),
        (["--private-key", "other"], "token: the token's signature is wrong"),
        (["--private-key", "public"], "token: that file is no private key in PEM"),
        (["--private-key", "odd"], f"token: that private key cannot sign {algorithm}"),
        (["--private-key", "nope"], "--private-key: nope: No such file or directory"),
    ):
        assert main([*ask, *more]) == 2
        assert capsys.readouterr().err == f"trio_feed: {line}\n"


def test_what_is_wrong_is_one_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["token", "--user", "7"]) == 2
    assert "no JWT is accepted: set auth.jwt.algorithm" in capsys.readouterr().err
    sets = words("auth.jwt.algorithm=HS256", f"auth.jwt.secret={SECRET}")
    assert main(["token", "--user", "7", "--expires", "soon", *sets]) == 2
    assert "--expires: 'soon' is no length of time" in capsys.readouterr().err
    assert main(["token", "--user", "7", "--expires", "forever", *sets]) == 2
    assert "has to end" in capsys.readouterr().err

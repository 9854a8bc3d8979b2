"""``token``: a JWT as a login would issue it, to test private events with.

It signs with what ``[auth.jwt]`` verifies with (HS256), or with the private key of the public one
that stands there (EdDSA, RS256), and shows the token to the service's own check.
"""

import json
import time
from pathlib import Path

import click

from ..push.private.auth import Authenticator, AuthError
from ..settings import Secret
from ..settings.fields import Duration
from .key import user_id
from .options import Refused, Wanted, put, settings_options


@click.command(
    "token",
    short_help="Issue a JWT for tests of private events.",
    help="Issue a JWT of a user, for tests; [auth.jwt] says which kind.",
)
@settings_options
@click.option("--user", required=True, callback=user_id, metavar="ID", help="The user's number.")
@click.option("--expires", default="1h", show_default=True, metavar="1h", help="So long it counts.")
@click.option(
    "--private-key", metavar="FILE", help="EdDSA, RS256: PEM file of the private key to sign with."
)
@click.option("--json", "as_json", is_flag=True, help="A JSON object with token and end.")
@click.pass_obj
def command(
    wanted: Wanted, files: tuple[str, ...], assignments: tuple[str, ...], user: int,
    expires: str, private_key: str | None, as_json: bool,
) -> int:  # fmt: skip
    settings = wanted.joined(files, assignments).load().auth
    try:
        length = Duration(expires)
    except ValueError as error:
        raise Refused(f"--expires: {error}") from None
    if length == Duration("forever"):
        raise Refused("--expires: a token has to end")
    pem = b""
    if private_key is not None:
        try:
            pem = Path(private_key).read_bytes()
        except OSError as error:
            raise Refused(f"--private-key: {private_key}: {error.strerror}") from None
    now_s = time.time()
    ends_s = int(now_s + length.seconds)
    from ..push.private.json_web_tokens import issue_token  # its libraries are slow to import

    try:
        token = issue_token(settings.jwt, user, ends_s, pem)
        Authenticator(settings).authenticate(Secret(token), now_s * 1000)
    except AuthError as error:
        raise Refused(f"token: {error}") from None
    if as_json:
        return put(json.dumps({"token": token, "user_id": user, "expires_ms": ends_s * 1000}))
    return put(token)

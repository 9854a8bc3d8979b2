"""``key``: a fresh key, and the lines for the settings, which hold its hash only."""

import json
import re

import click

from ..push.private.auth import PUBLISHER_KEY, USER_KEY, new_key
from .options import put


def user_id(_context: click.Context, _parameter: click.Parameter, text: str | None) -> int | None:
    if text is None:
        return None
    if not text.isascii() or not text.isdigit() or not 0 < int(text) < 2**63:
        raise click.BadParameter(f"{text!r} is not a user's number")
    return int(text)


def _name(_context: click.Context, _parameter: click.Parameter, text: str) -> str:
    if re.fullmatch(r"[\w .@-]{1,64}", text) is None:
        raise click.BadParameter(f"{text!r} is not a name of letters, digits and . @ - _")
    return text


@click.command("key", help="Make a key; the settings get its hash.")
@click.option("--user", callback=user_id, metavar="ID", help="An API key of this user.")
@click.option("--publisher", is_flag=True, help="A key to report events with.")
@click.option("--broadcast", is_flag=True, help="The publisher may write to all users at once.")
@click.option("--name", default="default", callback=_name, help="For the log.")
@click.option("--json", "as_json", is_flag=True, help="A JSON object with key and hash.")
def command(user: int | None, publisher: bool, broadcast: bool, name: str, as_json: bool) -> int:
    if (user is not None) is publisher:
        raise click.UsageError("one of --user ID and --publisher")
    if broadcast and not publisher:
        raise click.UsageError("--broadcast is for a --publisher")
    key, digest = new_key(PUBLISHER_KEY if publisher else USER_KEY)
    table = "settlement.publishers" if publisher else "auth.api_keys"
    if as_json:
        found = {"key": key, "table": table, "name": name, "sha256": digest}
        more = {"broadcast": broadcast} if publisher else {"user_id": user}
        return put(json.dumps(found | more))
    owner = "" if publisher else f"user_id = {user}\n"
    may = "\nbroadcast = true" if broadcast else ""
    return put(
        f"# key: {key}\n# It is shown this once.  The lines for the settings:\n"
        f'[[{table}]]\nname = "{name}"\n{owner}sha256 = "{digest}"{may}'
    )

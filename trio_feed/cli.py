"""Command line: argv -> Settings -> ``trio.run(service.run)`` -> exit code.

0: ended by a signal, in order.  1: a bug, with its cause.  2: something the user can mend, in one
line on stderr.
"""

import argparse
import json
import os
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from functools import partial

import trio

from . import __version__, logs, service
from .environment import real_environment
from .errors import SettingsError, StartError, StoreError
from .push.private.auth import PUBLISHER_KEY, USER_KEY, new_key
from .settings import Settings, load_with_origins, masked, misspelt
from .supervise import root_cause
from .validate import check, complete

DEFAULT_CONFIG = "config/default.toml"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    options = _parser().parse_args(argv)
    if options.command == "key":
        return _new_key(options)
    for name, meant in misspelt(os.environ, Settings):
        print(f"trio_feed: {name} is not read; did you mean {meant}?", file=sys.stderr)
    try:
        settings = _load(options)
    except SettingsError as error:
        return _refuse(error)
    if options.check:
        return _print(json.dumps(masked(settings), indent=2))
    return _run(settings, partial(_load, options))


def _print(text: str) -> int:
    """To stdout, of which a reader may want the beginning only (``| head``)."""
    try:
        print(text, flush=True)
    except OSError as error:
        # What is still in Python's buffer would be tried again at the exit, with a traceback.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            return _refuse(StartError(f"stdout: {error.strerror}"))
    return 0


def _new_key(options: argparse.Namespace) -> int:
    """A fresh key, and the lines for the settings, which hold its hash only."""
    key, digest = new_key(PUBLISHER_KEY if options.publisher else USER_KEY)
    table = "settlement.publishers" if options.publisher else "auth.api_keys"
    user = "" if options.publisher else f"user_id = {options.user}\n"
    return _print(
        f"# key: {key}\n# It is shown this once.  The lines for the settings:\n"
        f'[[{table}]]\nname = "{options.name}"\n{user}sha256 = "{digest}"'
    )


def _run(settings: Settings, reload: Callable[[], Settings]) -> int:
    async def serve() -> None:
        await service.run(settings, real_environment(), environ=os.environ, reload=reload)

    try:
        with logs.writing(settings.logging):
            trio.run(serve)
    except (Exception, BaseExceptionGroup, KeyboardInterrupt) as error:  # noqa: BLE001
        # The outermost frame: every error ends here as one readable cause and an exit code.
        return _explain(root_cause(error))
    return 0


def _explain(cause: BaseException) -> int:
    if isinstance(cause, SettingsError | StartError | StoreError):
        return _refuse(cause)
    if isinstance(cause, KeyboardInterrupt):
        return 130
    traceback.print_exception(cause)
    print(f"trio_feed: bug: {type(cause).__name__}: {cause}", file=sys.stderr)
    return 1


def _load(options: argparse.Namespace) -> Settings:
    """Complete and checked.  Raises SettingsError, which names the file or the variable."""
    files = options.config
    if not files and os.path.exists(DEFAULT_CONFIG):
        files = [DEFAULT_CONFIG]
    settings, origins = load_with_origins(files, os.environ, options.set)
    try:
        settings = complete(settings)
        check(settings)
    except SettingsError as error:
        raise origins.named(error) from None
    return settings


def _refuse(error: BaseException) -> int:
    print(f"trio_feed: {error}", file=sys.stderr)
    return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m trio_feed",
        description="Market data through a proxy, out of one WebSocket endpoint.",
    )
    parser.add_argument(
        "--config",
        action="append",
        default=[],
        metavar="FILE",
        help=f"TOML settings; several are merged left to right (default: {DEFAULT_CONFIG})",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="a.b=value",
        help="set one value; stronger than files and TRIO_FEED__A__B variables",
    )
    parser.add_argument(
        "--check", action="store_true", help="print the effective settings, secrets masked"
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", metavar="key")
    key = commands.add_parser("key", help="make a key; the settings get its hash")
    whose = key.add_mutually_exclusive_group(required=True)
    whose.add_argument("--user", type=_user_id, metavar="ID", help="an API key of this user")
    whose.add_argument("--publisher", action="store_true", help="a key to report events with")
    key.add_argument("--name", default="default", type=_key_name, help="for the log")
    return parser


def _user_id(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 0 < int(text) < 2**63:
        raise argparse.ArgumentTypeError(f"{text!r} is not a user's number")
    return int(text)


def _key_name(text: str) -> str:
    if re.fullmatch(r"[\w .@-]{1,64}", text) is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a name of letters, digits and . @ - _")
    return text

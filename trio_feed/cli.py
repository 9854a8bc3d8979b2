"""Command line: argv -> a command of :mod:`.commands` -> exit code.

0: ended by a signal, in order.  1: a bug, with its cause.  2: something the user can mend, in one
line on stderr.  3: a server that the service needs was away for too long, in one line: start again.

A command's file is imported when it is asked for: what one of them needs costs the others nothing.
"""

import importlib
import sys
import traceback
from collections.abc import Sequence
from difflib import get_close_matches
from io import TextIOWrapper

import click

from . import __version__
from .commands.options import ReaderGone, Refused, Wanted, settings_options
from .errors import ServerAway, SettingsError, StartError, StoreError
from .supervise import root_cause

_COMMANDS = (
    "run", "init", "check", "proxy-test", "status", "tail", "chart", "klines", "exchange", "key",
    "token", "copy-store", "simulate", "soak", "bench",
)  # fmt: skip


class _Commands(click.Group):
    """Each lies in the file of its name."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        name = cmd_name.replace("-", "_")
        module = importlib.import_module(f".commands.{name}", __package__)
        command: click.Command = module.command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """What click does, and the command that may have been meant."""
        if args and self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            near = get_close_matches(args[0], _COMMANDS, 1)
            meant = f"; did you mean {near[0]}?" if near else f"; one of {', '.join(_COMMANDS)}"
            ctx.fail(f"No such command {args[0]!r}{meant}")
        return super().resolve_command(ctx, args)


@click.group(
    cls=_Commands,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    help="Market data through a proxy, out of one WebSocket endpoint.\n\n"
    "Without a command it runs the service: with trio_feed.toml or config/default.toml of this"
    " folder, else a packaged demo with a simulated market.",
    epilog='First steps: "trio-feed" (a simulated market, http://127.0.0.1:8080/), "trio-feed init"'
    ' (your own settings), "trio-feed check --connect" (why does it not connect?).'
    " Shell completion: docs/commands.md.",
)
@settings_options
@click.option("--check", is_flag=True, help="Print the effective settings, secrets masked.")
@click.version_option(__version__, message="%(version)s")
@click.pass_context
def _group(
    context: click.Context, files: tuple[str, ...], assignments: tuple[str, ...], check: bool
) -> int:
    context.obj = Wanted(files, assignments)
    if context.invoked_subcommand is not None:
        return 0
    if check:
        from .commands.check import print_settings

        return print_settings(context.obj)
    from .commands.run import start

    return start(context.obj)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code.  A command line that is wrong is a SystemExit(2)."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):  # a pipe on Windows takes a few hundred signs only
        if isinstance(stream, TextIOWrapper) and stream.encoding.lower() != "utf-8":
            stream.reconfigure(errors="replace")
    try:
        code = _group.main(arguments, prog_name="trio-feed", standalone_mode=False)
    except click.UsageError as error:
        print(f"trio_feed: {_one_line(error)}", file=sys.stderr)
        raise SystemExit(2) from None
    except click.Abort:
        return 130
    except (Exception, BaseExceptionGroup, KeyboardInterrupt) as error:  # noqa: BLE001
        # The outermost frame: every error ends here as one readable cause and an exit code.
        return _explain(root_cause(error))
    return code if isinstance(code, int) else 0


def _one_line(error: click.UsageError) -> str:
    where = f"; {error.ctx.command_path} --help says more" if error.ctx is not None else ""
    return " ".join(error.format_message().split()).rstrip(".") + where


def _explain(cause: BaseException) -> int:
    if isinstance(cause, SettingsError | StartError | StoreError | Refused):
        print(f"trio_feed: {cause}", file=sys.stderr)
        return 3 if isinstance(cause, ServerAway) else 2
    if isinstance(cause, ReaderGone):
        return 0
    if isinstance(cause, KeyboardInterrupt):
        return 130
    traceback.print_exception(cause)
    print(f"trio_feed: bug: {type(cause).__name__}: {cause}", file=sys.stderr)
    return 1

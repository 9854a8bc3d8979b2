"""What several commands share: settings from files, variables and ``--set``; text to stdout."""

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import click
from attrs import frozen

from ..errors import SettingsError, StartError
from ..settings import Settings, load_with_origins, misspelt

DEFAULT_CONFIG = "config/default.toml"
OWN_CONFIG = "trio_feed.toml"
"""What ``init`` writes and what is read where nothing else is named."""
DEMO_CONFIG = Path(__file__).with_name("demo.toml")


class Refused(Exception):
    """Something that the user can mend: one line, exit code 2."""


@frozen
class Wanted:
    """Where the settings are to come from."""

    files: tuple[str, ...] = ()
    assignments: tuple[str, ...] = ()

    def joined(self, files: Sequence[str], assignments: Sequence[str]) -> "Wanted":
        """What stands before a command and what behind it."""
        return Wanted((*self.files, *files), (*self.assignments, *assignments))

    def found_files(self) -> tuple[str, ...]:
        """The files to read; the packaged demo where nothing says what is wanted."""
        if self.files:
            return self.files
        for name in (OWN_CONFIG, DEFAULT_CONFIG):
            if os.path.exists(name):
                return (name,)
        named = any("exchanges." in each for each in self.assignments)
        from_environment = any(name.startswith("TRIO_FEED__EXCHANGES__") for name in os.environ)
        return () if named or from_environment else (str(DEMO_CONFIG),)

    @property
    def is_demo(self) -> bool:
        return self.found_files() == (str(DEMO_CONFIG),)

    def load(self) -> Settings:
        """Complete and checked.  Raises SettingsError, which names the file or the variable."""
        # What is checked are venues, connections and the server: half of a start, and most commands
        # read no settings.
        from ..validate import check, complete, of_venue

        try:
            found = load_with_origins(self.found_files(), os.environ, self.assignments)
        except SettingsError as error:
            raise of_venue(error) from None
        settings, origins = found
        try:
            settings = complete(settings)
            check(settings)
        except SettingsError as error:
            raise origins.named(error) from None
        return settings


def settings_options(command: Callable[..., object]) -> Callable[..., object]:
    """``--config`` and ``--set``."""
    config = click.option(
        "--config",
        "files",
        multiple=True,
        metavar="FILE",
        help=f"TOML settings; several are merged left to right (default: {OWN_CONFIG},"
        f" {DEFAULT_CONFIG}, else the packaged demo)",
    )
    values = click.option(
        "--set",
        "assignments",
        multiple=True,
        metavar="a.b=value",
        help="set one value; stronger than files and TRIO_FEED__A__B variables",
    )
    return config(values(command))


def say_notes(settings: Settings) -> None:
    from ..validate import notes

    for note in notes(settings):
        print(f"trio_feed: {note}", file=sys.stderr)


def warn_of_misspelt() -> None:
    """Variables that look like settings and are none."""
    for name, meant in misspelt(os.environ, Settings):
        print(f"trio_feed: {name} is not read; did you mean {meant}?", file=sys.stderr)


def put(text: str) -> int:
    """To stdout, of which a reader may want the beginning only (``| head``)."""
    try:
        print(text, flush=True)
    except OSError as error:
        # What is still in Python's buffer would be tried again at the exit, with a traceback.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            raise ReaderGone from None
        raise StartError(f"stdout: {error.strerror}") from None
    return 0


class ReaderGone(Exception):
    """Nobody reads stdout any more: the command has done what it should."""

"""Commands that are scripts of the project's own checkout: a wheel does not hold them.

They compare the service with its simulated market, kill it again and again, and measure it beside
other libraries; what they need beyond the service (judges, other clients) is not installed with it.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import click

from .options import Refused

_ROOT = Path(__file__).resolve().parent.parent.parent
_ANY_WORDS = {"ignore_unknown_options": True, "help_option_names": []}


def script(name: str, summary: str, *, own_environment: bool = False) -> click.Command:
    """The command that hands all its words to ``scripts/<name>``.  ``own_environment``: the script
    brings libraries of its own, which bash sets up; else it runs in this interpreter."""

    @click.command(name, help=summary, context_settings=_ANY_WORDS)
    @click.argument("words", nargs=-1, type=click.UNPROCESSED)
    def command(words: tuple[str, ...]) -> int:
        environ = {**os.environ, "PYTHONHASHSEED": "0"}
        return subprocess.call(
            [*program(name, _ROOT, own_environment=own_environment), *words], env=environ
        )

    return command


def program(name: str, root: Path, *, own_environment: bool) -> list[str]:
    """What is to be run.  Raises Refused where it is not there."""
    file = root / "scripts" / (name if own_environment else f"{name}.py")
    if not file.exists() or not (root / "pyproject.toml").exists():
        raise Refused(
            f"{name} is a script of the project's checkout, which an installed package does not"
            f" hold: clone the repository and run scripts/{name} there"
        )
    if not own_environment:
        return [sys.executable, str(file)]
    shell = shutil.which("bash")
    if shell is None:
        raise Refused(f"scripts/{name} sets up an environment of its own and needs bash")
    return [shell, str(file)]

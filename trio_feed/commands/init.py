"""``init``: writes a commented configuration, by flags or by asking."""

import json
import os
import sys
import tomllib

import click

from ..errors import SettingsError
from ..settings.load import structure
from ..validate import check, complete
from ..venues import NAMES
from .options import OWN_CONFIG, Refused, put

_SYMBOLS = {"spinpet": "*"}


@click.command(
    "init",
    short_help="Write a commented configuration.",
    help=f"Write a commented configuration, {OWN_CONFIG}; asks for what no flag says.",
)
@click.option("--venue", type=click.Choice(NAMES))
@click.option("--symbols", help="With commas: BTCUSDT,ETHUSDT.")
@click.option("--proxy", help='http://user@host:7890, socks5://host:1080, or "none".')
@click.option("--program", help="The Solana program of venue spinpet.")
@click.option("--output", default=OWN_CONFIG, show_default=True, metavar="FILE")
@click.option("--force", is_flag=True, help="Write over a file that is there.")
@click.option("--json", "as_json", is_flag=True, help="Say what was written as a JSON object.")
def command(
    venue: str | None, symbols: str | None, proxy: str | None, program: str | None,
    output: str, force: bool, as_json: bool,
) -> int:  # fmt: skip
    if os.path.exists(output) and not force:
        raise Refused(f"{output}: is there already; --force writes over it")
    ask = _Questions()
    if venue is None:
        venue = ask("Venue", "binance_usdm", click.Choice(NAMES))
    if symbols is None:
        symbols = ask("Symbols", _SYMBOLS.get(venue, "BTCUSDT,ETHUSDT"))
    if venue == "spinpet" and not program:
        program = ask("Program id", "")
        if not program:
            raise Refused("spinpet reads one Solana program: name it with --program ID")
    if proxy is None:
        proxy = ask("Proxy (http://host:port, socks5://host:port, none)", "none")
    if ask.taken:
        click.echo(f"trio_feed: no answer, so taken: {'; '.join(ask.taken)}", err=True)
    named = [symbol.strip() for symbol in symbols.split(",") if symbol.strip()]
    text = written(venue, named, "" if proxy == "none" else proxy, program or "")
    try:
        check(complete(structure(tomllib.loads(text))))
    except SettingsError as error:
        raise Refused(str(error)) from None
    try:
        # A proxy's password may stand in it.
        with open(
            os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8"
        ) as file:
            file.write(text)
        os.chmod(output, 0o600)
    except OSError as error:
        raise Refused(f"{output}: cannot be written ({error.strerror})") from None
    if as_json:
        return put(json.dumps({"file": output, "venue": venue, "symbols": named}))
    config = "" if output == OWN_CONFIG else f" --config {output}"
    return put(
        f"{output} is written.  Next:\n"
        f"  trio-feed{config} check --connect   (does it connect?)\n"
        f"  trio-feed{config}                   (start)"
    )


class _Questions:
    """Asks on a terminal; elsewhere the answers are lines of stdin, and what they lack is
    ``taken``: the default, said afterwards."""

    def __init__(self) -> None:
        self.taken: list[str] = []

    def __call__(self, question: str, default: str, kind: click.Choice[str] | None = None) -> str:
        if sys.stdin is not None and sys.stdin.isatty():
            return str(click.prompt(question, default=default, type=kind, err=True))
        answer = self._line()
        if answer is None:
            self.taken.append(f"{question.partition(' (')[0]} {default}".rstrip())
            return default
        found = answer or default
        if kind is not None and found not in kind.choices:
            raise Refused(f"{question}: {found!r} is none; one of {', '.join(kind.choices)}")
        return found

    def _line(self) -> str | None:
        """None: there is none any more."""
        try:
            line = sys.stdin.readline() if sys.stdin is not None else ""
        except (OSError, UnicodeDecodeError):  # closed, or no text
            return None
        return line.strip() if line else None


def written(venue: str, symbols: list[str], proxy: str, program: str = "") -> str:
    """The file's text.  Pure; nothing of it is checked."""
    listed = ", ".join(_quoted(symbol) for symbol in symbols)
    chain = venue == "spinpet"
    intervals = "[]" if chain else '["1m", "5m", "1h", "1d"]'
    lines = [
        "# Written by trio-feed init.  Try it: trio-feed check --connect",
        "# All settings: docs/settings-reference.md of the source; trio-feed check prints yours.",
        "",
        f"[exchanges.{venue}]",
        f"symbols = [{listed}]",
        f"intervals = {intervals:<30}  # candles of the exchange",
        'trade_intervals = ["1s", "30s"]            # candles that are made of trades',
        "",
        f"[exchanges.{venue}.connection]",
        "# The only way out where it is set; nothing ever goes around it.  A password is better in",
        f"# TRIO_FEED__EXCHANGES__{venue.upper()}__CONNECTION__PROXY__PASSWORD",
        f"proxy = {_quoted(proxy)}" if proxy else '# proxy = "http://127.0.0.1:7890"',
    ]
    if chain:
        lines += ["", "[exchanges.spinpet.solana]", f"program_id = {_quoted(program)}"]
    lines += [
        "",
        "[store]",
        'path = "data/live.db"                      # ":memory:" keeps nothing',
        "",
        "[server]",
        'host = "127.0.0.1"                         # "0.0.0.0" for others: see SECURITY.md',
        "port = 8080",
    ]
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    """A basic TOML string."""
    return json.dumps(text, ensure_ascii=False)

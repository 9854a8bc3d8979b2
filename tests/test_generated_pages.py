"""The pages that are made of the code are up to date, and say something about everything."""

from pathlib import Path
from textwrap import dedent

import pytest

from scripts import pages, pages_events, pages_logs, pages_settings

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize("name", pages.PAGES)
def test_a_page_is_as_the_code_is(name: str) -> None:
    assert (ROOT / name).read_text(encoding="utf-8") == pages.PAGES[name](), "run scripts/pages"


def test_every_event_that_is_logged_has_a_text_and_no_text_is_of_one_that_is_gone() -> None:
    assert set(pages_logs.texts()) == set(pages_events.events())


def test_an_event_has_its_level_and_its_fields() -> None:
    found = pages_events.events()
    assert {"venue", "connection", "reason", "problem", "retry_s"} <= set(
        found["connection.lost"].fields
    )
    assert found["store.write_failed"].levels == {"error"}  # logged for others, by a helper
    assert found["candle.hole"].fields.keys() >= {"venue", "stream", "candles"}  # by the driver
    assert {"proxy.up", "egress.down", "clock.stepped", "log.lines_lost"} <= found.keys()


def source(tmp_path: Path, text: str) -> Path:
    (tmp_path / "a.py").write_text(
        f"import structlog\nlog = structlog.get_logger()\n{dedent(text)}"
    )
    return tmp_path


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("log.info('a.b', x=1)", {"a.b"}),
        ("def f(x):\n    log.info('a.b' if x else 'a.c')", {"a.b", "a.c"}),
        ("def f(x):\n    say = log.info if x else log.error\n    say('a.b')", {"a.b"}),
        ("def f(lines):\n    lines.say(log.info, 'a.b', 1.0)", {"a.b"}),
        ("class A:\n    def f(self):\n        self._log = log.bind(v=1)\n"
         "        async def g():\n            self._log.debug('a.b')", {"a.b"}),
        ("Report('a.b', 'info', {'x': 1})", {"a.b"}),
        ("print('a.b')\nmath.log('a.b')", set()),
    ],
)  # fmt: skip
def test_names_are_found_however_they_are_logged(
    text: str, names: set[str], tmp_path: Path
) -> None:
    assert pages_events.events(source(tmp_path, text)).keys() == names


def test_a_name_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(pages_events.Unreadable, match=r"a\.py:4"):
        pages_events.events(source(tmp_path, "def f(name):\n    log.info(name)"))


def test_a_logger_that_is_not_known_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(pages_events.Unreadable, match="logger"):
        pages_events.events(source(tmp_path, "def f(logger):\n    logger.info('a.b')"))


def test_every_key_of_the_settings_has_a_text() -> None:
    found = {f"{table.path} {key.name}": key for t in [pages_settings.tables()] for table in t
             for key in table.keys}  # fmt: skip
    assert [name for name, key in found.items() if not key.text] == []
    port = found["[server] port"]
    assert (port.kind, port.default) == ("whole number, 0 to 65,535", "`8080`")
    assert found["[exchanges.<venue>.connection.proxy] password"].kind == "text, secret"
    assert found["[[auth.api_keys]] user_id"].kind == "whole number, 1 to 2^63-1"
    assert found["[auth] api_keys"].reloaded
    assert not found["[server] port"].reloaded

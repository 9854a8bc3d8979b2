"""``store.url``: its form, and that its password is shown nowhere."""

import json

import pytest

from trio_feed.errors import SettingsError
from trio_feed.settings import DatabaseUrl, load, masked

SECRET = "hunter2"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("", ""),
        ("postgresql://h/d", "postgresql://h/d"),
        ("postgres://h", "postgresql://h"),
        (f"postgresql://u:{SECRET}@h:5432/d", "postgresql://u@h:5432/d"),
        (f"postgresql://u@h/d?password={SECRET}&sslmode=require", "postgresql://u@h/d"),
        (f"postgresql://a:1,b:2/d?passfile=/x/{SECRET}", "postgresql://a:1,b:2/d"),
        ("postgresql://[::1]:5432/d", "postgresql://[::1]:5432/d"),
        ("postgresql:///d?host=/run/postgresql", "postgresql:///d"),
        ("postgresql://%75@h/c%61ndles", "postgresql://u@h/candles"),
        ("postgresql://h/a%0Ab", "postgresql://h/a?b"),
    ],
)
def test_what_is_shown(url: str, shown: str) -> None:
    settings = load([], {}, [f"store.url={url}", f"settlement.url={url}"])
    assert settings.store.url.reveal() == url
    assert settings.store.url.shown == shown
    assert bool(settings.store.url) == bool(url)
    for text in (json.dumps(masked(settings)), repr(settings), f"{settings.store.url!r}"):
        assert SECRET not in text
        assert shown in text


@pytest.mark.parametrize(
    "url",
    [
        f"mysql://u:{SECRET}@h/d",
        f"postgresql://u:{SECRET}@word@h/d",
        f"postgresql://u:{SECRET}%@h/d",
        f"postgresql://u:{SECRET} x@h/d",
        f"postgresql://u:{SECRET}@h:70000/d",
        f"postgresql://u:{SECRET}@h:x/d",
        f"postgresql:u:{SECRET}@h/d",
        f"host=h password={SECRET}",
        f"postgresql://u:{SECRET}/x@h/d",
    ],
)
@pytest.mark.parametrize("key", ["store.url", "settlement.url"])
def test_what_is_none_is_not_quoted(url: str, key: str) -> None:
    with pytest.raises(SettingsError, match=rf"^{key}: is not a PostgreSQL URL such as ") as raised:
        load([], {}, [f"{key}={url}"])
    assert SECRET not in str(raised.value)
    assert "percent-encode" in str(raised.value)


def test_a_file_and_a_database_of_private_events_are_one_too_many() -> None:
    with pytest.raises(SettingsError, match=r"^settlement.url: stands beside `path`: one of both"):
        load([], {}, ["settlement.url=postgresql://h/d", "settlement.path=x"])


PUBLISHER = "settlement.publishers=[{name='e', sha256='" + "0" * 64 + "'}]"


@pytest.mark.parametrize(
    ("assignments", "shown"),
    [
        (["store.url=postgresql://h/d"], ""),  # nobody has any
        (["store.url=postgresql://h/d", PUBLISHER], "postgresql://h/d"),
        (["store.url=postgresql://h/d", "settlement.path=x", PUBLISHER], ""),
        (
            ["store.url=postgresql://h/d", "settlement.url=postgresql://h/e", PUBLISHER],
            "postgresql://h/e",
        ),
        (["settlement.url=postgresql://h/e", PUBLISHER], "postgresql://h/e"),
    ],
)
def test_where_private_events_are(assignments: list[str], shown: str) -> None:
    assert load([], {}, assignments).journal_url.shown == shown


def test_equal_is_what_is_written_alike() -> None:
    one, two = DatabaseUrl("postgresql://u:a@h/d"), DatabaseUrl("postgresql://u:b@h/d")
    assert one != two
    assert one == DatabaseUrl("postgresql://u:a@h/d")

"""``[engine]`` and ``[node]``: their form, what they want of other tables, and their secrets."""

import importlib.machinery
import json

import pytest

from trio_feed import validate
from trio_feed.errors import SettingsError
from trio_feed.settings import EngineUrl, Settings, load, masked

SECRET = "hunter2"
WHOLE = {
    "engine.kind": "valkey",
    "engine.urls": '["valkey://h"]',
    "node.name": "push-1",
    "store.url": "postgresql://h/d",
    "exchanges.binance_usdm.symbols": '["BTCUSDT"]',
}


def loaded(**changed: str) -> Settings:
    """Of a whole cluster; ``engine__urls="..."`` changes a key, empty removes it."""
    values = WHOLE | {key.replace("__", "."): value for key, value in changed.items()}
    return load([], {}, [f"{key}={value}" for key, value in values.items() if value])


@pytest.fixture(autouse=True)
def libraries(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Those that are there."""
    there = {"coredis", "psycopg"}

    def find(name: str) -> object:
        return importlib.machinery.ModuleSpec(name, None) if name in there else None

    monkeypatch.setattr(validate, "find_spec", find)
    return there


@pytest.mark.parametrize(
    ("url", "meant"),
    [
        ("valkey://h", EngineUrl("h", 6379)),
        ("redis://10.0.0.1:7000/3", EngineUrl("10.0.0.1", 7000, database=3)),
        ("valkeys://h:1", EngineUrl("h", 1, tls=True)),
        ("rediss://h/", EngineUrl("h", 6379, tls=True)),
        ("valkey://[::1]:7", EngineUrl("::1", 7)),
        ("sentinel://h", EngineUrl("h", 26379, sentinel=True)),
        ("sentinels://h:5/main", EngineUrl("h", 5, tls=True, sentinel=True, primary="main")),
    ],
)
def test_forms_of_urls(url: str, meant: EngineUrl) -> None:
    (place,) = loaded(engine__urls=f'["{url}"]').engine.places
    assert place == meant


def test_an_address_is_what_people_write() -> None:
    assert EngineUrl("::1", 7).address == "[::1]:7"
    assert EngineUrl("h", 7).address == "h:7"


@pytest.mark.parametrize(
    "url",
    [
        "h:6379",
        "http://h",
        "valkey://",
        "valkey://h:70000",
        "valkey://h/x",
        "valkey://h/1024",
        "valkey://h?password=" + SECRET,
        "unix:///tmp/s",
    ],
)
def test_what_is_none_is_not_quoted(url: str) -> None:
    with pytest.raises(SettingsError, match=r"^engine.urls.0: is not a URL such as ") as raised:
        loaded(engine__urls=f'["{url}"]')
    assert SECRET not in str(raised.value)


def test_a_password_is_no_part_of_a_url_and_shown_nowhere() -> None:
    with pytest.raises(SettingsError, match=r"urls.1: .* engine.password") as raised:
        loaded(engine__urls=f'["sentinel://h", "sentinel://:{SECRET}@h"]')
    assert SECRET not in str(raised.value)
    settings = loaded(engine__password=SECRET, engine__user="feed")
    assert settings.engine.password.reveal() == SECRET
    for text in (json.dumps(masked(settings)), repr(settings)):
        assert SECRET not in text
        assert "feed" in text


def test_a_whole_cluster_is_taken() -> None:
    validate.check(loaded())
    validate.check(loaded(engine__urls='["sentinels://a/m", "sentinels://b/m"]'))
    validate.check(loaded(node__roles='["push"]', settlement__url="postgresql://h/e"))


def test_one_process_needs_none_of_it() -> None:
    settings = load([], {}, ['exchanges.binance_usdm.symbols=["BTCUSDT"]'])
    validate.check(settings)
    assert settings.engine.kind == "memory"
    assert settings.engine.places == ()
    assert settings.node.roles == ("ingest", "push")


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"engine__urls": ""}, r"engine.urls: missing: .*valkey://"),
        ({"engine__kind": "memory"}, r'engine.urls: are of kind = "valkey"'),
        ({"engine__kind": "redis"}, r"engine.kind: 'redis' is not one of memory, valkey"),
        ({"engine__urls": '["valkey://a", "valkey://b"]'}, "engine.urls: several are of sentinels"),
        ({"engine__urls": '["sentinel://a", "valkey://b"]'}, "engine.urls: several are of"),
        ({"engine__urls": '["sentinel://a/m", "sentinel://b/n"]'}, "urls: are not all of the same"),
        ({"engine__urls": '["sentinel://a", "sentinels://b"]'}, "urls: are not all of the same"),
        ({"engine__prefix": "a{b"}, r"engine.prefix: is not a name"),
        ({"engine__prefix": '""'}, r"engine.prefix: missing"),
        ({"engine__shards": "0"}, r"engine.shards: 0 is not between 1 and 256"),
        (
            {"engine__buffer_bytes": "1"},
            r"engine.buffer_bytes: 1 is not between 1048576 and 17179869184",
        ),
        ({"engine__timeout_s": "1.5"}, r"engine.timeout_s: is not below half of lease_s \(3\)"),
        ({"engine__standby": "warm"}, r"engine.standby: 'warm' is not one of cold, hot"),
        ({"engine__tls_cert_file": "a"}, r"engine.tls_key_file: missing"),
        ({"engine__tls_key_file": "a"}, r"engine.tls_cert_file: missing"),
        (
            {"engine__ca_file": "a"},
            r"engine.urls: are without TLS, for which engine.ca_file is: valkeys",
        ),
        (
            {
                "engine__urls": '["sentinel://a/m"]',
                "engine__tls_cert_file": "a",
                "engine__tls_key_file": "b",
            },
            r"engine.urls: are without TLS, for which engine.tls_cert_file is: sentinels:",
        ),
        ({"node__name": ""}, r"node.name: missing"),
        ({"node__name": "a b"}, r"node.name: is not a name"),
        ({"node__roles": "[]"}, r"node.roles: none"),
        ({"node__roles": '["push", "push"]'}, r"node.roles: one is given twice"),
        ({"node__roles": '["pull"]'}, r"node.roles.*'pull' is not one of ingest, push"),
        ({"store__url": ""}, r"store.url: missing"),
        ({"settlement__path": "x.db"}, r"settlement.path: is of one machine"),
        (
            {"server__workers": "2", "node__roles": '["ingest"]'},
            r"server.workers: nobody to serve: node.roles lacks",
        ),
        (
            {"exchanges__binance_usdm__symbols": "on_demand"},
            r"exchanges.binance_usdm.symbols: on demand is not for an engine",
        ),
        (
            {"dialects__binance__passthrough": '["GET /api/v3/account"]'},
            r"dialects.binance.passthrough: not together with an engine",
        ),
    ],
    ids=str,
)
def test_mistakes(changed: dict[str, str], says: str) -> None:
    with pytest.raises(SettingsError, match=says) as raised:
        validate.check(loaded(**changed))
    assert "\n" not in str(raised.value)


def test_a_node_with_one_role_wants_an_engine() -> None:
    settings = loaded(engine__kind="", engine__urls="", node__roles='["push"]')
    with pytest.raises(SettingsError, match=r"node.roles: only some"):
        validate.check(settings)


def test_the_library_is_an_extra(libraries: set[str]) -> None:
    libraries.discard("coredis")
    with pytest.raises(SettingsError, match=r'engine.kind: .* pip install "\.\[cluster\]"'):
        validate.check(loaded())

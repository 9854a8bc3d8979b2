from pathlib import Path

import pytest
from attrs import fields_dict

from trio_feed.errors import SettingsError
from trio_feed.model import Interval
from trio_feed.settings import (
    Secret,
    ServerSettings,
    Settings,
    load,
    masked,
    masked_url,
    misspelt,
    needing_restart,
)
from trio_feed.settings.fields import Duration

PROXY = "exchanges.binance_usdm.connection.proxy"


def test_files_then_environment_then_assignments(tmp_path: Path) -> None:
    first, second = tmp_path / "a.toml", tmp_path / "b.toml"
    first.write_text('[server]\nhost = "0.0.0.0"\nport = 1\n[logging]\nlevel = "debug"')
    second.write_text("[server]\nport = 2")
    files = [first, second]
    assert load(files).server.port == 2
    assert load(files).server.host == "0.0.0.0"
    environ = {"TRIO_FEED__SERVER__PORT": "3", "HOME": "ignored"}
    assert load(files, environ).server.port == 3
    assert load(files, environ, ["server.port=4"]).server.port == 4
    assert load(files, environ).logging.level == "debug"


def test_the_users_tables_keep_their_names(tmp_path: Path) -> None:
    file = tmp_path / "user.toml"
    file.write_text(
        """
[kline]
connection_timeout = 120
max_subscriptions_per_client = 200
broadcast_buffer_size = 50000
history_data_limit = 500
enable_kline_service = true
[server]
host = "0.0.0.0"
port = 0
[websocket]
ping_interval = 25000
ping_timeout = 60000
max_connections = 10000
compression = true
[exchanges.binance_usdm.connection.proxy]
address = "127.0.0.1:4780"
proxy_type = "http"
enabled = true
username = "me"
password = "hunter2"
"""
    )
    settings = load([file])
    proxy = settings.exchanges["binance_usdm"].connection.proxy
    assert (proxy.enabled, proxy.address, proxy.proxy_type) == (True, "127.0.0.1:4780", "http")
    assert proxy.password.reveal() == "hunter2"
    assert (settings.kline.connection_timeout, settings.websocket.ping_interval) == (120, 25_000)


KNOWN_OF_SERVER = "server.xyz: unknown; known here: " + ", ".join(fields_dict(ServerSettings))


@pytest.mark.parametrize(
    ("assignment", "line"),
    [
        ("server.port=x", "server.port: 'x' is not a whole number"),
        ("server.port=99999", "server.port: 99999 is not between 0 and 65535"),
        ("server.port=true", "server.port: True is not a whole number"),
        ("server.xyz=1", KNOWN_OF_SERVER),
        ("server.prt=1", "server.prt: unknown; did you mean port?"),
        ("sever.port=1", "sever: unknown; did you mean server?"),
        (
            "exchanges.x.connection.proxi.enabled=1",
            "exchanges.x.connection.proxi: unknown; did you mean proxies?",
        ),
        ("server=3", "server: '3' is a value where a table is wanted"),
        ("nowhere.x=3", "nowhere: unknown; known here: exchanges"),
        ("a..b=1", "a..b: an empty name in the path"),
        ("nothing", "nothing: --set wants a.b=value"),
        ("logging.level=loud", "logging.level: 'loud' is not one of debug, info"),
        ("exchanges.x.symbols=BTC", "exchanges.x.symbols: 'BTC' is not a list"),
        ("exchanges.x.symbols=['b t']", "exchanges.x.symbols: 'b t' is not a symbol"),
        ("exchanges.x.symbols=['A','A']", "exchanges.x.symbols: one is listed twice"),
        ("exchanges.x.intervals=['7m']", "exchanges.x.intervals: '7m' is not one of 1s 30s"),
        ("exchanges.x.intervals=[5]", "exchanges.x.intervals: 5 is not an interval"),
        ("exchanges.x.trade_intervals=['3m']", "exchanges.x.trade_intervals: 3m not one of"),
        ("exchanges.x.trade_intervals=['1m']", "exchanges.x.trade_intervals: 1m listed twice"),
        ("store.keep.7m=1d", "store.keep.7m: '7m' is not one of 1s 30s"),
        ("store.keep.1s=7x", "store.keep.1s: '7x' is no length of time such as 36h, 7d"),
        ("store.keep.1s=0d", "store.keep.1s: '0d' is no length of time"),
        ("store.keep.1s=7", "store.keep.1s: '7' is no length of time"),
        ('store.keep={"1s" = 7}', "store.keep.1s: 7 is no length of time"),
        ("store.keep=7d", "store.keep: '7d' is no table such as"),
        (f"{PROXY}.enabled=true", f"{PROXY}.address: missing although the proxy is enabled"),
        (f"{PROXY}.address=host", f"{PROXY}.address: 'host' is not host:port"),
        (f"{PROXY}.address=host:0", f"{PROXY}.address: port 0 is not between"),
        (f"{PROXY}.proxy_type=ftp", f"{PROXY}.proxy_type: 'ftp' is not one of http, https"),
        (f"{PROXY}.password=x", f"{PROXY}.password: given without a username"),
    ],
)
def test_a_wrong_key_is_one_line_with_its_path(assignment: str, line: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load(assignments=[assignment])
    assert str(caught.value).startswith(line)
    assert "\n" not in str(caught.value)


def test_an_error_names_the_file_or_the_variable(tmp_path: Path) -> None:
    first, second = tmp_path / "a.toml", tmp_path / "b.toml"
    first.write_text("[server]\nport = 1\nprot = 2")
    second.write_text('[server]\nport = "x"\n[[settlement.publishers]]\nname = "a"')

    def refused(*files: Path, environ: dict[str, str] | None = None, to: str = "") -> str:
        with pytest.raises(SettingsError) as caught:
            load(files, environ, [to] if to else [])
        return str(caught.value)

    assert refused(first).endswith(f" ({first})")
    assert refused(second).endswith(f"'x' is not a whole number ({second})")
    assert f"({second})" in refused(second, to="server.port=1")  # a table of an array
    name = "TRIO_FEED__SERVER__PORT"
    assert refused(second, environ={name: "y"}) == (
        f"server.port: 'y' is not a whole number ({name})"
    )
    assert refused(environ={name: "1"}, to="server.port=z").endswith("(--set)")
    missing = {f"TRIO_FEED__{PROXY}__ENABLED".replace(".", "__").upper(): "true"}
    assert refused(environ=missing).endswith(f"is enabled ({next(iter(missing))})")
    assert "TRIO_FEED___X" in refused(environ={"TRIO_FEED___X": "1"})
    latin = {"TRIO_FEED__SERVER__HOST": b"caf\xe9".decode(errors="surrogateescape")}
    assert refused(environ=latin) == "server.host: is not UTF-8 (TRIO_FEED__SERVER__HOST)"


def test_variables_that_were_meant_for_us(tmp_path: Path) -> None:
    meant = {
        "TRIO_FEED_SERVER_PORT": "TRIO_FEED__SERVER__PORT",
        "TRIO_FEED_SERVER__PORT": "TRIO_FEED__SERVER__PORT",
        "TRIO_FEED_AUTH_JWT_KEY_FILE": "TRIO_FEED__AUTH__JWT__KEY_FILE",
        "trio_feed__server__port": "TRIO_FEED__SERVER__PORT",
        "TRIOFEED__STORE__PATH": "TRIO_FEED__STORE__PATH",
        "TRIO_FEED_EXCHANGES__OKX__ENABLED": "TRIO_FEED__EXCHANGES__OKX__ENABLED",
    }
    others = [
        "TRIO_FEED__SERVER__PORT", "TRIO_FEED_SERVICE_PORT", "TRIO_FEED_PORT", "TRIO_FEED_HOME",
        "TRIO_FEED_PORT_8080_TCP", "TRIO_FEEDER_SERVER_PORT", "SERVER_PORT",
    ]  # fmt: skip
    environ = dict.fromkeys([*meant, *others], "1")
    assert dict(misspelt(environ, Settings)) == meant


def test_how_long_candles_stay(tmp_path: Path) -> None:
    """What is not named keeps its default; files, environment and --set add up."""
    file = tmp_path / "a.toml"
    file.write_text('[store.keep]\n"1s" = "36h"\nm1 = "2w"\n"1M" = "forever"')
    assert masked(load([file]))["store"]["keep"] == {
        "1s": "36h",
        "30s": "365d",
        "1m": "2w",
        "1M": "forever",
    }
    environ = {"TRIO_FEED__STORE__KEEP__30S": "90s"}
    keep = load([file], environ, ["store.keep.m1=30m"]).store.keep
    assert {interval.value: length.seconds for interval, length in keep.items()} == {
        "1s": 36 * 3600,
        "30s": 90,
        "1m": 1800,
        "1M": float("inf"),
    }
    inline = load((), {"TRIO_FEED__STORE__KEEP": '{"1M" = "52w", "1s" = "forever"}'}).store.keep
    assert (str(inline[Interval.MO1]), str(inline[Interval.S1])) == ("52w", "forever")
    assert load().store.keep == {Interval.S1: Duration("30d"), Interval.S30: Duration("365d")}
    assert len({Duration("7d"), Duration("1w"), Duration("168h")}) == 1


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="No such file"):
        load([tmp_path / "absent.toml"])
    broken = tmp_path / "broken.toml"
    broken.write_text("[server\nport")
    with pytest.raises(SettingsError, match=r"broken\.toml: not TOML"):
        load([broken])
    broken.write_bytes(b"\xff\xfe")
    with pytest.raises(SettingsError, match="not TOML"):
        load([broken])


@pytest.mark.parametrize("password", ["12345", "true", "1_000", "pa ss", '"quoted"', "[x]"])
def test_a_secret_from_the_environment_is_text_whatever_it_looks_like(password: str) -> None:
    name = "TRIO_FEED__EXCHANGES__X__CONNECTION__PROXY__"
    settings = load((), {name + "USERNAME": "5", name + "PASSWORD": password})
    proxy = settings.exchanges["x"].connection.proxy
    assert (proxy.username, proxy.password.reveal()) == ("5", password.strip('"'))


def test_secrets_never_print() -> None:
    secret = Secret("hunter2")
    settings = load(assignments=[f"{PROXY}.username=me", f"{PROXY}.password=hunter2"])
    for text in (repr(secret), str(secret), f"{secret}", repr(settings), str(masked(settings))):
        assert "hunter2" not in text
    tree = masked(settings)["exchanges"]["binance_usdm"]
    assert tree["connection"]["proxy"]["password"] == "***"
    assert tree["intervals"][0] == Interval.M1.value
    with pytest.raises(SettingsError) as caught:
        load(assignments=[f"{PROXY}.password.deep=hunter2"])
    assert "hunter2" not in str(caught.value)


def test_shipped_files_load() -> None:
    root = Path(__file__).parent.parent / "config"
    assert load([root / "default.toml"]).simulator.enabled
    live = load([root / "live.toml"])
    assert not live.simulator.enabled
    assert not live.exchanges["binance_usdm"].connection.proxy.enabled


SHOWN_URLS = [
    ("https://NAME.solana-mainnet.quiknode.pro/0123456789abcdef/", "0123456789abcdef"),
    ("wss://solana-mainnet.g.alchemy.com/v2/AbCdEf-123_456", "AbCdEf-123_456"),
    ("https://rpc.shyft.to?api_key=AbC", "AbC"),
    ("https://host:8443/x?a=1&api-key=AbC-dEf", "AbC-dEf"),
    ("https://user:pAsSwOrD@host/", "pAsSwOrD"),
    ("https://[::1", "::1"),
    ("//AbC", "AbC"),
    ("https://host/aB3", "aB3"),
    ("https://host?AbCdEf123456", "AbCdEf123456"),
    ("wss://host/v2/AbC@dEf,1:2", "AbC"),
    ("wss://host?streams=AbC", "AbC"),
    ("wss://user@host#AbC", "AbC"),
    ("wss://AbC$dEf/x", "AbC"),
]


@pytest.mark.parametrize(("url", "key"), SHOWN_URLS)
def test_keys_in_urls_are_not_shown(url: str, key: str) -> None:
    assert key not in masked_url(url)
    assigned = f'exchanges.spinpet.connection.rest_url="{url}"'
    settings = load([], {}, [assigned])
    assert key not in str(masked(settings)) + repr(settings)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("", ""),
        ("wss://fstream.binance.com/stream?streams=b@kline_1m", "wss://fstream.binance.com/***"),
        ("wss://ws.okx.com:8443/ws/v5/business", "wss://ws.okx.com:8443/***"),
        ("wss://user:password@[::1]:8443/", "wss://[::1]:8443"),
        ("wss://api.mainnet-beta.solana.com", "wss://api.mainnet-beta.solana.com"),
    ],
)
def test_all_past_the_host_of_a_url_is_masked(url: str, shown: str) -> None:
    assert masked_url(url) == shown


@pytest.mark.parametrize(
    "assignment",
    [
        'exchanges.okx.connection="https://host/AbCdEf"',
        'exchanges.spinpet.solana.endpoints=["https://host/AbCdEf"]',
        'exchanges.okx.connection.proxies=["ftp://AbCdEf:AbCdEf@host:1080"]',
    ],
)
def test_a_url_in_the_wrong_place_is_not_shown(assignment: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load(assignments=[assignment])
    assert "AbCdEf" not in str(caught.value)


def test_endpoints_of_solana() -> None:
    value = '[{rest_url = "https://a/KEY1234567890"}, {rest_url = "http://b", token = "SECRET"}]'
    settings = load([], {}, [f"exchanges.spinpet.solana.endpoints={value}"])
    first, second = settings.exchanges["spinpet"].solana.endpoints
    assert (first.rest_url, bool(first.token)) == ("https://a/KEY1234567890", False)
    assert second.token.reveal() == "SECRET"
    for shown in (repr(settings), str(masked(settings))):
        assert "SECRET" not in shown
        assert "KEY123" not in shown
    with pytest.raises(SettingsError, match=r"endpoints.*rest_url"):
        load([], {}, ["exchanges.spinpet.solana.endpoints=[{}]"])


@pytest.mark.parametrize(
    ("assignments", "restart"),
    [
        ([], []),
        (["exchanges.okx.enabled=true"], []),
        ([f"auth.api_keys=[{{name='a', user_id=7, sha256='{'a' * 64}'}}]"], []),
        ([f"settlement.publishers=[{{name='a', sha256='{'a' * 64}'}}]"], []),
        (["auth.max_failures=9"], ["auth.max_failures"]),
        (["auth.jwt.algorithm=HS256", f"auth.jwt.secret={'x' * 32}"], []),
        (["settlement.max_events=9", "server.port=81"], ["server.port", "settlement.max_events"]),
        (["store.path=x", "logging.level=debug"], ["logging.level", "store.path"]),
        (["server.tls_cert_file=a", "server.tls_key_file=b"], ["server.tls_cert_file"]),
    ],
)  # fmt: skip
def test_which_changes_want_a_restart(assignments: list[str], restart: list[str]) -> None:
    assert sorted(needing_restart(load(), load(assignments=assignments))) == restart


def test_another_certificate_wants_no_restart() -> None:
    own, new = (
        load(assignments=[f"server.tls_cert_file={n}", f"server.tls_key_file={n}"]) for n in "ab"
    )
    assert needing_restart(own, new) == []
    assert needing_restart(own, load()) == ["server.tls_cert_file"]


def test_a_file_per_key_adds_up(tmp_path: Path) -> None:
    """As ``trio_feed key`` prints them, one for each user."""
    files = []
    for name, user in (("alice", 1), ("bob", 2)):
        path = tmp_path / f"{name}.toml"
        path.write_text(
            f'[[auth.api_keys]]\nname = "{name}"\nuser_id = {user}\nsha256 = "{user:064x}"\n'
        )
        files.append(path)
    assert [key.name for key in load(files).auth.api_keys] == ["alice", "bob"]

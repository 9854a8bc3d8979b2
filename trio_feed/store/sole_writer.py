"""One writer for a file: a lock beside it that the kernel gives back when its process ends.

Not on the file itself: that one may be deleted and put back while it is in use.  Who only reads
takes no lock.  Blocking, for moments.
"""

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import structlog

from ..errors import StartError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_LOCKED_BYTE = 2**30
"""Windows locks bytes, and what is locked nobody can read: this one is behind the text."""

log = structlog.get_logger()


@contextmanager
def sole_writer(path: Path, setting: str) -> Iterator[None]:
    """Be the only one that writes to ``path``.  Raises StartError, naming ``setting``, where
    another process is.

    A place without locks, or one that may not be written to, is used without: opening the file
    itself says what is wrong with it.
    """
    lock = path.with_name(path.name + ".lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        number = os.open(lock, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600)
    except OSError as error:
        log.warning("store.no_lock", path=str(lock), problem=error.strerror)
        yield
        return
    try:
        _take(number, lock, path, setting)
        yield
    finally:
        os.close(number)


def _take(number: int, lock: Path, path: Path, setting: str) -> None:
    try:
        _lock(number)
    except BlockingIOError:
        raise StartError(
            f"{setting}: {path} is being written by another trio_feed{_holder(number)}; end it,"
            f" or give each its own {setting}"
        ) from None
    except OSError as error:  # a network file system without locks
        log.warning("store.no_lock", path=str(lock), problem=error.strerror)
    else:
        os.ftruncate(number, 0)
        os.lseek(number, 0, os.SEEK_SET)
        os.write(number, str(os.getpid()).encode())


def _holder(number: int) -> str:
    os.lseek(number, 0, os.SEEK_SET)
    pid = os.read(number, 20)
    return f" (process {pid.decode()})" if pid.isdigit() else ""


def _lock(number: int) -> None:
    """Raises BlockingIOError where another process has it, another OSError where there are none."""
    if fcntl is not None:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return
    if sys.platform != "win32":
        raise OSError(errno.ENOSYS, "this system has no file locks")
    import msvcrt

    os.lseek(number, _LOCKED_BYTE, os.SEEK_SET)
    try:
        msvcrt.locking(number, msvcrt.LK_NBLCK, 1)
    except OSError as error:
        raise BlockingIOError(error.errno, error.strerror) from None

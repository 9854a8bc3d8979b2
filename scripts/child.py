"""A process of one's own, for tests, benches and the soak: it is ended in order, paused, killed,
and does not outlive who started it."""

import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from attrs import define


@define(eq=False)
class Child:
    """Made by :meth:`start`; :meth:`stop` it, whatever state it is in."""

    _process: subprocess.Popen[bytes]
    _watch: subprocess.Popen[bytes]
    """A shell that ends it where this process was killed and could not."""

    @classmethod
    def start(
        cls, words: Sequence[str], log: Path, cwd: Path, *, ended_by: str = "KILL", **more: Any
    ) -> "Child":
        """What it says is appended to ``log``.  ``ended_by``: the name of the signal with which the
        shell ends it; ``more``: of ``Popen``."""
        with log.open("ab") as out:
            process = subprocess.Popen(words, stdout=out, stderr=out, cwd=cwd, **more)
        watch = subprocess.Popen(
            ["sh", "-c", f'cat >/dev/null; kill -{ended_by} "$0"', str(process.pid)],
            stdin=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        return cls(process, watch)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """None: it runs."""
        return self._process.poll()

    @property
    def runs(self) -> bool:
        return self.returncode is None

    def pause(self, *, on: bool) -> None:
        self._process.send_signal(signal.SIGSTOP if on else signal.SIGCONT)

    def stop(self, how: int = signal.SIGKILL, within_s: float = 30) -> None:
        """Returns when it has ended; one that takes longer is killed."""
        self._unwatch()
        self.pause(on=False)
        self._process.send_signal(how)
        try:
            self._process.wait(within_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(5)

    def _unwatch(self) -> None:
        """Before its number may be another process's."""
        if self._watch.stdin is not None and not self._watch.stdin.closed:
            self._watch.kill()
            self._watch.wait()
            self._watch.stdin.close()


def workers_of(pid: int) -> list[int]:
    """The numbers of the worker processes of a service, in their order.  Linux."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            words = (folder / "cmdline").read_text()
        except OSError:  # it has just ended
            continue
        if parent == pid and "trio_feed.workers" in words:
            found.append(int(folder.name))
    return sorted(found)

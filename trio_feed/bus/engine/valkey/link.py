"""The ways to the primary: one connection for the commands of all tasks, and one for each read
that waits.

A connection that fails, or is silent for too long, is thrown away; the next call opens another one
and asks the sentinels anew.  So nothing is repaired here, and no call has an earlier one's trouble.

A primary that was paused comes back and thinks for ten seconds more that it still is one: who reads
there hears nothing, and what is written there is lost.  So the sentinels are asked all the time.
"""

import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import trio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from attrs import define, field
from coredis.connection import TCPConnection, TCPLocation
from coredis.exceptions import (
    AuthenticationRequiredError,
    ConnectionError,
    NoScriptError,
    ReadOnlyError,
    RedisError,
    UnknownCommandError,
    WrongTypeError,
)

from ....settings import EngineSettings, EngineUrl, Secret
from ..base import EngineFault
from .faults import HungUp, WrongKind, fault
from .scripts import Script

Command = Sequence[Any]
"""Its name, or a :class:`Script` and the number of its keys; and what follows that."""
_NO_PRIMARY = "it is a replica, which takes nothing"
_NO_SERVER = "it is a sentinel: write sentinel:// in engine.urls"
_NO_SENTINEL = "it is a server and no sentinel: write valkey:// in engine.urls"
_MOST_IDLE = 4
_LOOK_S = 1.0
_OTHERS = 0.25
"""Of ``timeout_s``: so long other sentinels may take after the first one answered."""


@define(eq=False)
class Link:
    _settings: EngineSettings
    _nursery: trio.Nursery
    """In which connections run."""
    _ssl: ssl.SSLContext | None
    _commands: TCPConnection | None = None
    _idle: list[TCPConnection] = field(factory=list)
    """Those of reads that have had their answer."""
    _dialling: trio.Lock = field(factory=trio.Lock)
    _where: str = ""
    """The server that was dialled last."""
    _open_ones: list[tuple[TCPConnection, str]] = field(factory=list)
    """Connections to the primary, and where it was."""

    async def watch(self) -> None:
        """Throw away what does not lead to the primary any more.  Until cancelled; ends where there
        are no sentinels."""
        while self._settings.places[0].sentinel:
            await trio.sleep(_LOOK_S)
            self._open_ones = [each for each in self._open_ones if each[0].usable]
            if not self._open_ones:
                continue
            try:
                with trio.fail_after(self._settings.timeout_s):
                    place = await self._primary()
            except (EngineFault, RedisError, trio.TooSlowError):
                continue
            for connection, address in self._open_ones:
                if address != place.address:
                    connection.invalidate()

    async def ask(self, *commands: Command) -> list[Any]:
        """Send them all at once.  Returns their answers.  Raises EngineFault where one fails; the
        others may have been done then."""
        with self._bounded(0) as scope:
            connection = await self._for_commands()
            try:
                return await _answers(connection, commands)
            except ReadOnlyError:  # it was the primary; who is it now?
                connection.invalidate()
                raise
            except trio.Cancelled:
                # Answers are matched by their order, so a caller that is cancelled costs the others
                # nothing; but one that waited in vain speaks for all.
                if scope.cancel_called:
                    connection.invalidate()
                raise

    async def try_each(self, *commands: Command) -> list[Any]:
        """As :meth:`ask`, with the error of each that fails in the place of its answer."""
        with self._bounded(0):
            return await _try(await self._for_commands(), [_by_sha(each) for each in commands])

    async def wait_for(self, command: Command, wait_s: float) -> Any:
        """The answer to a command that blocks its connection for so long."""
        with self._bounded(wait_s):
            connection = self._one_idle() or await self._dial()
            try:
                (answer,) = await _answers(connection, [command])
            except BaseException:  # an answer that comes now would be taken for the next one's
                connection.invalidate()
                raise
            if len(self._idle) < _MOST_IDLE:
                self._idle.append(connection)
            else:
                connection.invalidate()
            return answer

    async def try_anew(self) -> None:
        """Whether one may come in now: those that are open stay so where a password changes."""
        with self._bounded(0):
            (await self._dial()).invalidate()

    async def server(self) -> tuple[str, str]:
        """The address of the primary, and its version."""
        with self._bounded(0):
            connection = await self._for_commands()
            return self._where, connection.server_version or ""

    async def _for_commands(self) -> TCPConnection:
        async with self._dialling:
            if self._commands is None or not self._commands.usable:
                self._commands = None
                self._commands = await self._dial()
            return self._commands

    def _one_idle(self) -> TCPConnection | None:
        while self._idle:
            if (connection := self._idle.pop()).usable:
                return connection
        return None

    async def _dial(self) -> TCPConnection:
        self._where = self._settings.places[0].address
        place = await self._primary()
        self._where = place.address
        connection = await self._open(place, self._settings.user, self._settings.password)
        try:
            (role,) = await _answers(connection, [[b"ROLE"]])
            if role[0] != b"master":
                sentinel = role[0] == b"sentinel"
                why = _NO_SERVER if sentinel else _NO_PRIMARY
                raise EngineFault(f"{place.address}: {why}", is_away=not sentinel)
        except BaseException:
            connection.invalidate()
            raise
        usable = (each for each in self._open_ones if each[0].usable)
        self._open_ones = [*usable, (connection, place.address)]
        return connection

    async def _open(self, place: EngineUrl, user: str, password: Secret) -> TCPConnection:
        """Raises RedisError."""
        connection = TCPConnection(
            TCPLocation(place.host, place.port),
            username=user or None,
            password=password.reveal() or None,
            db=place.database,
            ssl_context=self._ssl,
        )
        try:
            await self._nursery.start(_run, connection)
        except ConnectionError as error:
            # coredis has this in the place of a Cancelled that ends its handshake, too.
            await trio.lowlevel.checkpoint_if_cancelled()
            raise HungUp(str(error)) from error
        except BaseException:
            connection.invalidate()  # which may be ready in this moment
            raise
        return connection

    async def _primary(self) -> EngineUrl:
        """The server, or what most sentinels say that it is: one may not know of a failover yet."""
        places = self._settings.places
        if not places[0].sentinel:
            return places[0]
        found: list[EngineUrl] = []
        faults: list[EngineFault] = []

        async def ask(place: EngineUrl) -> None:
            try:
                told = await self._told_by(place)
            except UnknownCommandError:
                faults.append(EngineFault(f"{place.address}: {_NO_SENTINEL}", is_away=False))
                return
            except RedisError as error:
                faults.append(fault(place.address, error, self._settings.password))
                return
            if told is not None:
                found.append(told)
                if found.count(told) > len(places) // 2:
                    nursery.cancel_scope.cancel()
                nursery.cancel_scope.deadline = min(
                    nursery.cancel_scope.deadline,
                    trio.current_time() + _OTHERS * self._settings.timeout_s,
                )

        async with trio.open_nursery() as nursery:
            for place in places:
                nursery.start_soon(ask, place)
        if found:
            return max(found, key=found.count)
        if faults:
            raise faults[0]
        unknown = f"no primary is named {places[0].primary!r} there"
        raise EngineFault(f"{places[0].address}: {unknown}", is_away=False)

    async def _told_by(self, place: EngineUrl) -> EngineUrl | None:
        """Raises RedisError."""
        try:
            connection = await self._open(place, "", Secret())
        except AuthenticationRequiredError:
            connection = await self._open(place, self._settings.user, self._settings.password)
        try:
            (told,) = await _answers(
                connection, [[b"SENTINEL GET-MASTER-ADDR-BY-NAME", place.primary]]
            )
        finally:
            connection.invalidate()
        return None if told is None else EngineUrl(told[0].decode(), int(told[1]), place.tls)

    @contextmanager
    def _bounded(self, wait_s: float) -> Iterator[trio.CancelScope]:
        """Whatever goes wrong inside is an EngineFault."""
        with trio.move_on_after(self._settings.timeout_s + wait_s) as scope:
            try:
                yield scope
            except RedisError as error:
                raise fault(self._where, error, self._settings.password) from None
        if scope.cancelled_caught:
            silent = f"{self._where}: no answer in {self._settings.timeout_s:g} s"
            # A server that speaks no TLS takes our greeting for the begin of a line, and waits.
            is_new = self._ssl is not None and not self._open_ones
            raise EngineFault(silent + ("; does it speak TLS there?" if is_new else ""))


async def _run(
    connection: TCPConnection, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Raises RedisError where it does not come to a connection; later it just ends."""
    try:
        await connection.run(task_status=task_status)
    finally:
        # coredis leaves them open where the dial fails.
        for each in vars(connection).values():
            if isinstance(each, MemoryObjectSendStream | MemoryObjectReceiveStream):
                each.close()


async def _answers(connection: TCPConnection, commands: Sequence[Command]) -> list[Any]:
    """Raises RedisError."""
    answers = await _try(connection, [_by_sha(each) for each in commands])
    if any(isinstance(answer, NoScriptError) for answer in answers):
        # The server began anew, or is another one: it learns scripts by their text.
        answers = await _try(connection, [_by_text(each) for each in commands])
    for command, answer in zip(commands, answers, strict=True):
        if isinstance(answer, WrongTypeError):
            raise WrongKind(_keys(command)) from answer
        if isinstance(answer, RedisError):
            raise answer
        if isinstance(answer, BaseException):
            raise ConnectionError("lost") from answer
    return answers


async def _try(connection: TCPConnection, commands: Sequence[Command]) -> list[Any]:
    requests = [
        connection.create_request(name, *rest, raise_exceptions=False) for name, *rest in commands
    ]
    return [await request for request in requests]


def _keys(command: Command) -> str:
    """Of one that wants a key to be of a type."""
    script, *rest = command
    if isinstance(script, Script):
        return str(rest[1])
    if script != b"XREAD":
        return str(rest[0])
    named = [
        each.decode() for each in rest[rest.index(b"STREAMS") + 1 :] if isinstance(each, bytes)
    ]
    return named[0] if len(named) == 1 else f"one of {', '.join(named)}"


def _by_sha(command: Command) -> Command:
    script, *rest = command
    return [b"EVALSHA", script.sha, *rest] if isinstance(script, Script) else command


def _by_text(command: Command) -> Command:
    script, *rest = command
    return [b"EVAL", script.text, *rest] if isinstance(script, Script) else command

"""The task that keeps a venue's list up to date."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Never

import structlog
import trio
from trio_util import AsyncValue, wait_any

from ..environment import Environment
from ..errors import BadMessage, NetworkError
from ..net.rest import Answer, RestClient
from ..settings import ExchangeSettings
from ..supervise import Backoff
from ..venues import Instruments, Venue
from . import instruments
from .troubles import Troubles


class ListKeeper:
    """Of one venue.  ``cache`` is where the list is kept on disk; None: nowhere.  ``note_answer``
    gets every answer.  ``awaited``: the list lacks a symbol of the settings.  ``carrying``:
    connections of the venue that live."""

    def __init__(
        self,
        venue: Venue,
        settings: ExchangeSettings,
        environment: Environment,
        cache: Path | None,
        note_answer: Callable[[Answer], None],
        awaited: Callable[[Instruments], bool],
        carrying: AsyncValue[int],
    ) -> None:
        self._venue, self._settings = venue, settings
        self._environment, self._cache = environment, cache
        self._note_answer, self._awaited, self._carrying = note_answer, awaited, carrying
        self._ask_again = trio.Event()

    def ask_again(self) -> None:
        """Do not wait until it is time."""
        self._ask_again.set()

    async def run(self, rest: RestClient, use: Callable[[Instruments], None]) -> Never:
        """The list at start, then again and again; ``use`` is called with each."""
        connection = self._settings.connection
        backoff = Backoff(connection.backoff_min_s, connection.backoff_max_s)
        refresh = instruments.Refresh(self._settings.instruments_refresh_s)
        log = structlog.get_logger().bind(venue=self._venue.NAME)
        troubles = Troubles(log, "instruments.failed")
        table, current = await instruments.load(
            self._venue,
            rest,
            self._environment,
            self._cache,
            backoff,
            self._note_answer,
            troubles,
        )
        fresh: instruments.Copy | None = None
        while True:
            use(table)
            if fresh is not None:  # it is in use before it is on the disk
                await instruments.write(self._cache, fresh)
            settled = current and not self._awaited(table)
            with trio.move_on_after(refresh.delay_s(settled=settled)):
                await self._worth_asking(current=current)
            self._ask_again = trio.Event()
            try:
                copy = await instruments.fetch(
                    self._venue, rest, self._environment.now_ms, self._note_answer
                )
                table = instruments.parse(self._venue, copy, table)
            except (NetworkError, BadMessage) as error:
                current, fresh = False, None
                troubles.say(error)
            else:
                troubles.over()
                current, fresh = True, copy

    async def _worth_asking(self, *, current: bool) -> None:
        """Return when the list is wanted sooner: for a symbol that is new in the settings, or
        because an old list is in use and the venue is in reach again."""
        if current or self._carrying.value:
            await self._ask_again.wait()
        else:
            await wait_any(
                self._ask_again.wait, partial(self._carrying.wait_value, lambda live: live > 0)
            )

"""The memory twin of the SQLite backend: the same answers, nothing kept over a restart."""

from collections.abc import Collection, Sequence

from ..model import PrivateMessage, Settlement
from .journal_plan import BatchPlan, EventKey, Settled, Stored


class MemoryJournalBackend:
    """See :class:`trio_feed.store.journal.JournalBackend`."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch
        self.shared_epoch: int | None = None
        self._events: dict[EventKey, tuple[float, list[PrivateMessage]]] = {}
        self._owners: dict[int, tuple[int, float]] = {}
        self._heads: dict[int, int] = {}
        self._users: dict[int, dict[int, PrivateMessage]] = {}

    def meet(self, users: Collection[int]) -> None:
        for user in users:
            self._heads.setdefault(user, 0)

    def settle(self, events: Sequence[Settlement]) -> Settled:
        plan = BatchPlan(self._known, self._owner, self.head, self._heads.items)
        for event in events:
            plan.add(event)
        self._events |= plan.events
        self._owners |= plan.owners
        self._heads |= plan.heads
        settled = plan.settled()
        for message in settled.messages:
            self._users.setdefault(message.user_id, {})[message.offset] = message
        return settled

    def head(self, user_id: int) -> int:
        return self._heads.get(user_id, 0)

    def read(self, user_id: int, after: int, until: int, limit: int) -> list[PrivateMessage]:
        rows = self._users.get(user_id, {})
        last = min(until, self.head(user_id), after + limit)
        return [rows[offset] for offset in range(after + 1, last + 1) if offset in rows]

    def prune(self, before_ms: float, orders_before_ms: float, limit: int) -> int:
        old: list[EventKey] = []
        for key, (at_ms, _) in self._events.items():
            if at_ms >= before_ms or len(old) == limit:
                break
            old.append(key)
        for key in old:
            for message in self._events.pop(key)[1]:
                del self._users[message.user_id][message.offset]
        orders = [o for o, (_, at_ms) in self._owners.items() if at_ms < orders_before_ms][:limit]
        for order in orders:
            del self._owners[order]
        return len(old) + len(orders)

    def close(self) -> None:
        pass

    def _known(self, key: EventKey) -> Stored | None:
        found = self._events.get(key)
        return None if found is None else [(m.user_id, m.body) for m in found[1]]

    def _owner(self, order_id: int) -> int | None:
        found = self._owners.get(order_id)
        return None if found is None else found[0]

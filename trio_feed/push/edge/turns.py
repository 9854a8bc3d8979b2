"""Whose turn it is: round robin over addresses, and over the clients of each.  Pure.

Places are few, because work side by side is not faster in one process but makes each turn of the
loop longer.  An address that asks for much waits for itself: the next place goes to the address
that has waited for longest since its last one, and there to the client of which the same is true.
"""

from collections import Counter, OrderedDict, deque

from attrs import define, field, frozen

from .admission import ip_group, is_loopback


@frozen
class Asker:
    """Who asks: an address (see :func:`.admission.ip_group`), and which of its clients.  ``local``:
    it is of this machine."""

    address: str
    client: str
    local: bool = False


def asker_at(host: str, client: str) -> Asker:
    """``host`` is the peer's IP address; empty: it has none."""
    return Asker(ip_group(host), client, is_loopback(host))


@define(eq=False)
class Turn:
    """A place in the queue; ``granted`` when its work may begin."""

    asker: Asker
    granted: bool = False


_Clients = OrderedDict[str, deque[Turn]]


@define
class Turns:
    """``at_once`` turns are granted at the same time, ``per_address`` of them to one address;
    ``most_waiting`` of one address may wait."""

    at_once: int
    per_address: int
    most_waiting: int
    _waiting: "OrderedDict[str, _Clients]" = field(factory=OrderedDict)
    _number: Counter[str] = field(factory=Counter)
    _running: Counter[str] = field(factory=Counter)

    def join(self, asker: Asker) -> Turn | None:
        """A turn, perhaps granted already; None: too many of this address are waiting."""
        if self._number[asker.address] >= self.most_waiting:
            return None
        turn = Turn(asker)
        clients = self._waiting.setdefault(asker.address, OrderedDict())
        clients.setdefault(asker.client, deque()).append(turn)
        self._number[asker.address] += 1
        self.grant()
        return turn

    def leave(self, turn: Turn) -> list[Turn]:
        """It is done, or given up.  Returns what is granted now."""
        address = turn.asker.address
        if turn.granted:
            _count(self._running, address, -1)
        else:
            self._remove(turn)
        return self.grant()

    def grant(self) -> list[Turn]:
        """Grant what can be granted."""
        granted = []
        while self._running.total() < self.at_once and (turn := self._next()) is not None:
            turn.granted = True
            self._remove(turn)
            _count(self._running, turn.asker.address, 1)
            granted.append(turn)
        return granted

    def _next(self) -> Turn | None:
        for address, clients in self._waiting.items():
            if self._running[address] < self.per_address:
                turns = next(iter(clients.values()))
                clients.move_to_end(turns[0].asker.client)
                self._waiting.move_to_end(address)
                return turns[0]
        return None

    def _remove(self, turn: Turn) -> None:
        address, client = turn.asker.address, turn.asker.client
        clients = self._waiting[address]
        clients[client].remove(turn)
        _count(self._number, address, -1)
        if not clients[client]:
            del clients[client]
        if not clients:
            del self._waiting[address]


def _count(counter: Counter[str], name: str, change: int) -> None:
    """Names at 0 are forgotten: strangers have many."""
    counter[name] += change
    if not counter[name]:
        del counter[name]

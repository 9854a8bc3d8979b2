"""The way of one series through an engine that may forget, as a model with faults.  Pure.

One shard and one candle series: two owners that take the shard over from each other, a log that
loses its last entries at a failover or all of them, a database that lags, push nodes that read the
log, clients that move between the nodes.  A :class:`Client` raises :class:`Broken` where it would
see a gap or a duplicate.  Each :class:`Rule` of the design can be switched off, and then some seed
finds out.

A number is (epoch, offset); an entry of the log has the id (epoch, sequence); candle ``k`` follows
candle ``k - 1``.
"""

import random
from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping, Sequence, Set
from enum import StrEnum

from attrs import define, field, frozen

Number = tuple[int, float]
_NONE: Number = (0, 0)
_KEPT_ENTRIES = 8
"""Entries that an owner can append once more after the log forgot them."""
_QUEUED = 6
_CALM_STEPS = 3_000


class Rule(StrEnum):
    """What keeps a promise.  Switched off, some client sees a gap or a duplicate."""

    COMPARE = "compare"
    """An append names its predecessor, and fails where another entry is last."""
    GUARD = "guard"
    """A node drops a closed candle that it has had already."""
    BREAKS = "breaks"
    """Numbers that were given and lost are void: the anchor of the client decides."""
    HEADS = "heads"
    """An owner begins at the later of log and database."""
    FENCE = "fence"
    """The database takes nothing of an owner whose epoch is over."""
    CHECKPOINT = "checkpoint"
    """An epoch begins with where its owner stands."""
    DISAGREE = "disagree"
    """Where log and database differ, the last number on which both agree ends the old ones."""
    BACKFILL = "backfill"
    """What is in neither is asked of the exchange, and saved."""
    STEP_DOWN = "step_down"
    """A fenced save ends the ownership."""
    NEWEST = "newest"
    """A node ignores entries of an epoch before the newest it has seen."""
    AHEAD = "ahead"
    """A node that is ahead of a log that forgot keeps its number until the log is where it is."""
    RING = "ring"
    """The messages kept for a resume survive a takeover only if the numbers agree."""


ALL = frozenset(Rule)


class Broken(Exception):
    """A promise is broken; the text says which client has what."""


@frozen
class Update:
    """A state of the open candle ``k``."""

    k: int
    number: Number


@frozen
class Closed:
    """Candle ``k``; ``after`` is the closed one before it."""

    k: int
    after: int
    number: Number


@frozen
class Checkpoint:
    """The last closed candle is ``k``; ``head`` is the last number of the epochs before."""

    k: int
    head: Number


Message = Update | Closed | Checkpoint


@define
class Log:
    """An append names what it follows.  Entries can be lost from the end and trimmed from the
    beginning."""

    rules: Set[Rule]
    entries: list[tuple[Number, Sequence[Message]]] = field(factory=list)

    @property
    def tail(self) -> Number:
        return self.entries[-1][0] if self.entries else _NONE

    def append(self, previous: Number, entry_id: Number, batch: Sequence[Message]) -> Number:
        """The id of the last entry then: ``entry_id``, or that of somebody else's entry."""
        last = self.tail
        if last == entry_id or (Rule.COMPARE in self.rules and last != previous):
            return last
        if entry_id > last:  # ids of a stream never go back
            self.entries.append((entry_id, batch))
            return entry_id
        return last

    def after(self, entry_id: Number) -> list[tuple[Number, Sequence[Message]]]:
        return [entry for entry in self.entries if entry[0] > entry_id]

    def forget(self, count: int) -> None:
        if count:
            del self.entries[max(0, len(self.entries) - count) :]

    def trim(self, keep: int) -> None:
        self.entries = self.entries[-keep:]


@define
class Database:
    """Candle -> number, fenced by epoch.  Numbers between the two of a break are void."""

    rules: Set[Rule]
    rows: dict[int, Number] = field(factory=dict)
    epoch: int = 0
    breaks: list[tuple[Number, Number]] = field(factory=list)

    @property
    def last(self) -> int:
        return max(self.rows, default=-1)

    @property
    def head(self) -> Number:
        return self.rows.get(self.last, _NONE)

    def put(self, epoch: int, rows: Iterable[tuple[int, Number]]) -> bool:
        """False: the writer is not the owner any more."""
        if Rule.FENCE in self.rules and epoch != self.epoch:
            return False
        for k, number in rows:
            self.rows.setdefault(k, number)
        return True


@define(eq=False)
class Owner:
    """A node that feeds the shard, or believes that it does."""

    world: "World"
    owns: bool = False
    epoch: int = 0
    closed: int = -1
    offset: int = 0
    sequence: int = 0
    previous: Number = _NONE
    queue: list[Message] = field(factory=list)
    under_way: tuple[Number, Sequence[Message]] | None = None
    sent: OrderedDict[Number, Sequence[Message]] = field(factory=OrderedDict)
    unsaved: list[tuple[int, Number]] = field(factory=list)

    def take_over(self) -> None:
        """A new epoch, fence the database, read where log and database end."""
        world, rules, database = self.world, self.world.rules, self.world.database
        world.epochs += 1
        self.epoch = world.epochs
        tail = world.log.tail
        database.epoch = max(database.epoch, self.epoch)
        head, closed = self._read_log()
        low = max(head, database.head)
        if Rule.DISAGREE in rules and head < database.head and closed > database.last:
            agreed = (number for number in database.rows.values() if number <= head)
            low = max(agreed, default=_NONE)
        database.breaks.append((low, (self.epoch, 0)))
        self.closed = max(closed, database.last) if Rule.HEADS in rules else closed
        self._fill_database()
        self.offset = self.sequence = 0
        self.previous, self.under_way = tail, None
        self.sent = OrderedDict({tail: ()})
        opening = [Checkpoint(self.closed, head)] if Rule.CHECKPOINT in rules else []
        self.owns, self.queue = True, list(opening)
        world.count["takeovers"] += 1

    def _read_log(self) -> tuple[Number, int]:
        head, closed = _NONE, -1
        for _, batch in self.world.log.entries:
            for message in batch:
                if isinstance(message, Checkpoint):
                    head, closed = max(head, message.head), max(closed, message.k)
                    continue
                head = max(head, message.number)
                if isinstance(message, Closed):
                    closed = max(closed, message.k)
        return head, closed

    def _fill_database(self) -> None:
        """What the log has and the database lacks is saved again.  What was trimmed before it was
        saved comes from the exchange, under numbers that nobody has."""
        database = self.world.database
        closed = [m for _, b in self.world.log.entries for m in b if isinstance(m, Closed)]
        self.unsaved = [(m.k, m.number) for m in closed if m.k not in database.rows]
        if Rule.BACKFILL not in self.world.rules:
            return
        have, low = {k for k, _ in self.unsaved}, database.head
        gone = [k for k in range(database.last + 1, self.closed + 1) if k not in have]
        if gone:
            later = (number for k, number in self.unsaved if k > gone[-1])
            database.breaks.append((low, min(later, default=(self.epoch, 0))))
            self.unsaved = sorted([(k, (low[0], low[1] + 0.5)) for k in gone] + self.unsaved)
            self.world.count["backfilled"] += len(gone)

    def emit(self) -> None:
        """What the exchange has and is not out yet, an update before each candle."""
        while self.closed < self.world.market - 1 and len(self.queue) < _QUEUED:
            k = self.closed + 1
            self.queue.append(Update(k, (self.epoch, self.offset + 1)))
            self.queue.append(Closed(k, self.closed, (self.epoch, self.offset + 2)))
            self.closed, self.offset = k, self.offset + 2

    def check_in(self) -> None:
        self.queue.append(Checkpoint(self.closed, (self.epoch, self.offset)))

    def send(self, fate: str) -> None:
        """One append is under way; ``fate``: ok, lost, or unacknowledged."""
        if self.under_way is None:
            if not self.queue:
                return
            self.sequence += 1
            self.under_way, self.queue = ((self.epoch, self.sequence), self.queue), []
        if fate == "lost":
            return
        entry_id, batch = self.under_way
        last = self.world.log.append(self.previous, entry_id, batch)
        if fate == "unacknowledged":
            return
        if last == entry_id:
            self._confirm(entry_id, batch)
        elif last > entry_id or last[0] > self.epoch:
            self.owns = False
            self.world.count["fenced"] += 1
        elif last in self.sent:
            self._repeat(last)
        else:  # more is gone than is kept
            self.take_over()

    def _confirm(self, entry_id: Number, batch: Sequence[Message]) -> None:
        self.sent[entry_id], self.previous, self.under_way = batch, entry_id, None
        self.unsaved += [(m.k, m.number) for m in batch if isinstance(m, Closed)]
        while len(self.sent) > _KEPT_ENTRIES:
            self.sent.popitem(last=False)

    def _repeat(self, last: Number) -> None:
        """The log forgot: append the same entries once more, under the same ids."""
        self.world.count["repeated"] += 1
        previous = last
        for entry_id in [known for known in self.sent if known > last]:
            self.world.log.append(previous, entry_id, self.sent[entry_id])
            previous = entry_id

    def save(self) -> None:
        if not self.unsaved:
            return
        if self.world.database.put(self.epoch, self.unsaved):
            self.unsaved = []
        elif Rule.STEP_DOWN in self.world.rules:
            self.owns = False


@define(eq=False)
class Node:
    """A push node.  It begins where the database ends."""

    world: "World"
    clients: list["Client"] = field(factory=list)
    ring: list[tuple[int, Number]] = field(factory=list)
    position: Number = _NONE
    closed: int = field(init=False)
    number: Number = field(init=False)
    newest: int = field(init=False)

    def __attrs_post_init__(self) -> None:
        database = self.world.database
        self.closed, self.number = database.last, database.head
        self.newest = self.number[0]

    def poll(self) -> None:
        """Read on; stop where something is missing that the database does not have yet."""
        for entry_id, batch in self.world.log.after(self.position):
            if Rule.NEWEST in self.world.rules and entry_id[0] < self.newest:
                self.position = entry_id
                continue
            self.newest = max(self.newest, entry_id[0])
            for message in batch:
                if not self._repair(_needed(message)):
                    return
                self._take(message, entry_id[0])
            self.position = entry_id

    def _take(self, message: Message, epoch: int) -> None:
        rules = self.world.rules
        if isinstance(message, Checkpoint):
            if Rule.RING in rules and message.head != self.number:
                self.ring.clear()
            if message.k == self.closed or Rule.AHEAD not in rules:
                self.number = max(self.number, message.head, (epoch, 0))
        elif isinstance(message, Closed):
            if message.k > self.closed or Rule.GUARD not in rules:
                self._deliver(message.k, message.number)
            else:
                self._follow(message, level=message.k == self.closed)
        else:
            self._follow(message, level=message.k == self.closed + 1)

    def _follow(self, message: Update | Closed, *, level: bool) -> None:
        if level or Rule.AHEAD not in self.world.rules:
            self.number = max(self.number, message.number)

    def _repair(self, upto: int) -> bool:
        rows, missing = self.world.database.rows, range(self.closed + 1, upto + 1)
        if not all(k in rows for k in missing):
            self.world.count["waits"] += 1
            return False
        for k in missing:
            self._deliver(k, rows[k])
        return True

    def _deliver(self, k: int, number: Number) -> None:
        self.closed, self.number = max(k, self.closed), max(self.number, number)
        self.ring.append((k, number))
        for client in self.clients:
            client.take(k, number)

    def resume(self, client: "Client") -> bool:
        """Give the client all that it missed, by its number where numbers count, else by the last
        closed candle that it has.  False: it asks again."""
        database = self.world.database
        known = {**database.rows, **dict(self.ring)}
        void = any(low < client.number < high for low, high in database.breaks)
        last: int | None = None
        if not (void and Rule.BREAKS in self.world.rules):
            if client.number > self.number:
                return False
            last = max((k for k, number in known.items() if number <= client.number), default=None)
        if last is None or not _has(known, last, self.closed):
            if self.closed < client.closed:
                return False
            last = client.closed
        if not _has(known, last, self.closed):
            return False
        for k in range(last + 1, self.closed + 1):
            client.take(k, known[k])
        return True


def _needed(message: Message) -> int:
    """The closed candle that has to be there before."""
    if isinstance(message, Closed):
        return message.after
    return message.k - 1 if isinstance(message, Update) else message.k


def _has(known: Mapping[int, Number], last: int, closed: int) -> bool:
    return all(k in known for k in range(last + 1, closed + 1))


@define(eq=False)
class Client:
    """It wants each candle once, in order, and tells where it moves what it has."""

    world: "World"
    closed: int = -1
    number: Number = _NONE
    node: Node | None = None

    def take(self, k: int, number: Number) -> None:
        if k != self.closed + 1:
            what = "a duplicate" if k <= self.closed else "a gap"
            raise Broken(f"a client has {self.closed} and gets {k}: {what}")
        self.closed, self.number = k, number
        self.world.count["delivered"] += 1

    def move(self, node: Node) -> None:
        if self.node is not None:
            self.node.clients.remove(self)
            self.node = None
        if node.resume(self):
            node.clients.append(self)
            self.node, self.number = node, max(self.number, node.number)
            self.world.count["resumed"] += 1


class World:
    """Everything of one seed."""

    def __init__(self, chance: random.Random, rules: Set[Rule] = ALL) -> None:
        self.rules, self._chance = rules, chance
        self.epochs = self.market = 0
        self.count: Counter[str] = Counter()
        self.log, self.database = Log(rules), Database(rules)
        self.owners = [Owner(self) for _ in range(2)]
        self.nodes = [Node(self) for _ in range(3)]
        self.clients = [Client(self) for _ in range(5)]

    def step(self, *, calm: bool = False) -> None:
        """Something happens; ``calm``: no fault, and the market stands still."""
        chance, place = self._chance, self._chance.random()
        owning = [owner for owner in self.owners if owner.owns]
        if not owning:
            chance.choice(self.owners).take_over()
            return
        owner, node = chance.choice(owning), chance.choice(self.nodes)
        if place < 0.20:
            self.market += not calm
            owner.emit()
        elif place < 0.45:
            owner.emit()
            fates = ["ok", "lost", "unacknowledged"]
            owner.send("ok" if calm else chance.choices(fates, [8, 1, 1])[0])
        elif place < 0.52:
            owner.save()
        elif place < 0.72:
            node.poll()
        elif place < 0.84:
            chance.choice(self.clients).move(node)
        elif place < 0.86:
            owner.check_in()
        elif not calm:
            self._fail(place, owner, node)

    def _fail(self, place: float, owner: Owner, node: Node) -> None:
        if place < 0.89:  # the other goes on, and does not know it yet
            self._chance.choice(self.owners).take_over()
        elif place < 0.92:
            self.owners[self.owners.index(owner)] = Owner(self)
        elif place < 0.95:
            self.log.forget(self._chance.randrange(0, 6))
        elif place < 0.97:
            self.log.trim(self._chance.randrange(3, 12))
        elif place < 0.99:
            for client in list(node.clients):
                client.node = None
            self.nodes[self.nodes.index(node)] = Node(self)
        elif place < 0.993:
            self.log.entries.clear()


def run(seed: int, rules: Set[Rule] = ALL, steps: int = 400) -> Counter[str]:
    """One seed: ``steps`` with faults, then calm until everybody has everything.  Returns what
    happened how often.  Raises Broken."""
    world = World(random.Random(seed), rules)
    for _ in range(steps):
        world.step()
    for _ in range(_CALM_STEPS):
        world.step(calm=True)
        if world.market and all(client.closed == world.market - 1 for client in world.clients):
            return world.count
    have = [client.closed for client in world.clients]
    raise Broken(f"the last candle is {world.market - 1}, the clients have {have}")

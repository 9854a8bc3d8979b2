"""Private events per user: live, resumed, ended; over journals in memory on virtual time."""

import json
import random
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import pytest
import structlog
import trio
from attrs import define, evolve, field
from hypothesis import given, settings
from hypothesis import strategies as st
from support.private import T_MS, balance, event, keys_for

from trio_feed.errors import JournalError
from trio_feed.metrics import Metrics
from trio_feed.model import PrivateMessage
from trio_feed.push.private.auth import Authenticator, Identity
from trio_feed.push.private.events import PrivateFeed
from trio_feed.push.private.session import PrivateAccess, PrivateSession
from trio_feed.push.private.settlement import expand
from trio_feed.push.protocol import Authenticate, Since
from trio_feed.settings import AuthSettings, Secret, SettlementSettings
from trio_feed.store import Journal
from trio_feed.store.journal_memory import MemoryJournalBackend

T = TypeVar("T")
KEYS, AUTH = keys_for(1, 2, 3)


def now_ms() -> float:
    return T_MS + trio.current_time() * 1000


@define(eq=False)
class Box:
    """A session's outside: keeps what it is told; ``full`` takes no more pushes."""

    client_id: str = "box"
    messages: list[dict[str, Any]] = field(factory=list)
    left: list[tuple[int, str]] = field(factory=list)
    full: bool = False
    reading: trio.Event = field(factory=trio.Event)

    def deliver(self, text: str) -> None:
        if self.full:
            self.leave(4408, "too slow", "")
        self.reply(text)

    def reply(self, text: str) -> None:
        if not self.left:
            self.messages.append(json.loads(text))

    async def wait_capacity(self) -> None:
        await self.reading.wait()

    def leave(self, code: int, reason: str, last_message: str) -> None:
        if last_message:
            self.reply(last_message)
        self.left.append((code, reason))

    def of(self, *kinds: str) -> list[dict[str, Any]]:
        return [m for m in self.messages if m["type"] in kinds]

    @property
    def offsets(self) -> list[int]:
        return [m["offset"] for m in self.of("balance.update")]


class Lagging(Journal):
    """Everything takes some time on its way there and back."""

    lag: Callable[[], float] = staticmethod(lambda: 0.0)

    async def _hop(self, turn: Any, call: Callable[[], T]) -> T:
        await trio.sleep(self.lag())
        result = call()
        await trio.sleep(self.lag())
        return result


class PrivateNode:
    """A journal, the feed on top of it, and boxes that come and go."""

    def __init__(
        self, auth: AuthSettings = AUTH, shared_epoch: int | None = None, **more: Any
    ) -> None:
        self.metrics = Metrics()
        self.backend = MemoryJournalBackend(T_MS)
        self.backend.shared_epoch = shared_epoch
        self.journal = Lagging(
            self.backend,
            SettlementSettings(**more),
            in_threads=False,
            now_ms=now_ms,
            metrics=self.metrics,
        )
        self.feed = PrivateFeed(self.journal, now_ms, self.metrics)
        self.access = PrivateAccess(Authenticator(auth), self.feed, auth, now_ms, self.metrics)
        self.published: list[PrivateMessage] = []
        self._number = 0

    def publish(self, fresh: Sequence[PrivateMessage]) -> None:
        self.published += fresh
        self.feed.publish(fresh)

    async def settle(self, *users: int) -> None:
        rows = []
        for user in users:
            self._number += 1
            rows.append(event(f"{user}-{self._number}", "balance.update", balance(), user))
        await self.journal.append([expand(row, now_ms(), "engine") for row in rows])

    @asynccontextmanager
    async def session(self, box: Any = None) -> AsyncIterator[tuple[Box, PrivateSession]]:
        box = box or Box()
        box.reading.set()
        async with trio.open_nursery() as nursery:
            private = PrivateSession(self.access, box, nursery)
            yield box, private
            private.close()
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def private_node(auth: AuthSettings = AUTH, **more: Any) -> AsyncIterator[PrivateNode]:
    made = PrivateNode(auth, **more)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(made.journal.run, made.publish)
        yield made
        nursery.cancel_scope.cancel()


def epoch_of(user: int) -> int:
    return PrivateFeed(
        Journal(
            MemoryJournalBackend(T_MS),
            SettlementSettings(),
            in_threads=False,
            now_ms=now_ms,
            metrics=Metrics(),
        ),
        now_ms,
        Metrics(),
    ).epoch_of(user)


def ask(user: int, since: int | None = None, epoch: int | None = None) -> Authenticate:
    where = None if since is None else Since(epoch or epoch_of(user), since)
    return Authenticate(Secret(KEYS[user]), where)


async def test_auth_says_who_one_is_and_where_one_stands(autojump_clock: trio.abc.Clock) -> None:
    async with private_node() as node, node.session() as (box, private):
        await node.settle(1, 1, 2)
        await private.authenticate(ask(1))
        assert box.messages == [
            {"type": "auth.success", "user_id": 1, "epoch": epoch_of(1), "offset": 2,
             "expires_at": None},
        ]  # fmt: skip
        assert private.authenticated


async def test_replies_repeat_the_id_of_the_request(autojump_clock: trio.abc.Clock) -> None:
    async with private_node() as node, node.session() as (box, private):
        await node.settle(1, 1)
        await private.authenticate(evolve(ask(1), id="a"))
        await private.authenticate(evolve(ask(1, 1), id=2))
        await private.authenticate(Authenticate(Secret("tfk_no"), None, 3))
        assert [(m["type"], m.get("id")) for m in box.messages] == [
            ("auth.success", "a"), ("auth.success", 2), ("balance.update", None), ("error", 3),
        ]  # fmt: skip


async def test_each_gets_its_own_on_every_connection(autojump_clock: trio.abc.Clock) -> None:
    async with (
        private_node() as node,
        node.session() as (one, first),
        node.session() as (two, second),
        node.session() as (other, third),
        node.session() as (stranger, _),
    ):
        await first.authenticate(ask(1))
        await second.authenticate(ask(1))
        await third.authenticate(ask(2))
        await node.settle(1, 2, 1)
        assert one.offsets == two.offsets == [1, 2]
        assert one.messages[1:] == two.messages[1:]
        assert [m["event_id"] for m in other.of("balance.update")] == ["2-2"]
        assert stranger.messages == []
        message = one.messages[1]
        assert list(message) == ["type", "data", "event_id", "epoch", "offset", "sent_at"]
        assert message["data"] == balance()


async def test_an_event_is_written_as_text_once(
    autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trio_feed.push import messages

    written: list[int] = []
    write = messages.private_event

    def counting(message: PrivateMessage, *more: Any) -> str:
        written.append(message.offset)
        return write(message, *more)

    monkeypatch.setattr(messages, "private_event", counting)
    async with private_node() as node, node.session() as (one, a), node.session() as (two, b):
        for private in (a, b):
            await private.authenticate(ask(1))
        await node.settle(1, 1)
        assert written == one.offsets == two.offsets == [1, 2]


@pytest.mark.parametrize("count", [0, 1, 99, 100, 101, 350])
async def test_resume_replays_exactly_what_was_missed(
    count: int, autojump_clock: trio.abc.Clock
) -> None:
    async with private_node() as node, node.session() as (box, private):
        await node.settle(*[1] * (7 + count))
        await private.authenticate(ask(1, 7))
        success = box.messages[0]
        assert (success["recovered"], success["offset"]) == (True, 7 + count)
        assert box.offsets == list(range(8, 8 + count))
        assert node.metrics.private_messages._value.get() == count
        await node.settle(1)
        assert box.offsets[-1] == 8 + count


@pytest.mark.parametrize(("since", "epoch"), [(3, None), (0, None), (6, T_MS), (99, None)])
async def test_what_is_not_there_any_more_is_said(
    since: int, epoch: int | None, autojump_clock: trio.abc.Clock
) -> None:
    async with private_node() as node, node.session() as (box, private):
        await node.settle(*[1] * 5)
        node.backend.prune(now_ms() + 1, 0, 5)
        await node.settle(1, 1)
        await private.authenticate(ask(1, since, epoch))
        assert (box.messages[0]["recovered"], box.messages[0]["offset"]) == (False, 7)
        assert box.offsets == []
        await node.settle(1)
        assert box.offsets == [8]


async def test_a_place_in_the_events_of_one_user_is_none_in_anothers(
    autojump_clock: trio.abc.Clock,
) -> None:
    """A page that changes its user and keeps its ``since`` would take 3 to 5 for everything."""
    async with private_node() as node, node.session() as (box, private):
        await node.settle(*[1] * 5, *[2] * 5)
        await private.authenticate(ask(1))
        mine = {name: box.messages[0][name] for name in ("epoch", "offset")}
        await private.authenticate(Authenticate(Secret(KEYS[2]), Since(mine["epoch"], 2)))
        assert (box.messages[1]["user_id"], box.messages[1]["recovered"]) == (2, False)
        assert box.offsets == []


async def test_the_place_of_a_client_that_an_older_version_served_counts(
    autojump_clock: trio.abc.Clock,
) -> None:
    """Version 1 of the journal told the same epoch to all users."""
    async with private_node(shared_epoch=T_MS) as node:
        await node.settle(*[1] * 5)
        async with node.session() as (box, private):
            await private.authenticate(ask(1, 3, T_MS))
            assert (box.messages[0]["recovered"], box.offsets) == (True, [4, 5])


async def test_a_long_replay_waits_for_its_reader(autojump_clock: trio.abc.Clock) -> None:
    async with (
        private_node() as node,
        trio.open_nursery() as nursery,
        node.session() as (box, private),
    ):
        await node.settle(*[1] * 1000)
        box.reading = trio.Event()
        nursery.start_soon(private.authenticate, ask(1, 0))
        await trio.testing.wait_all_tasks_blocked()
        assert len(box.offsets) <= 100
        await node.settle(*[1] * 50)
        box.reading.set()
        await trio.testing.wait_all_tasks_blocked()
        assert box.offsets == list(range(1, 1051))
        await node.settle(1)
        assert box.offsets[-1] == 1051


async def test_a_replay_that_retention_overtakes_is_cut_off(
    autojump_clock: trio.abc.Clock,
) -> None:
    async with (
        private_node() as node,
        trio.open_nursery() as nursery,
        node.session() as (box, private),
    ):
        await node.settle(*[1] * 300)
        box.reading = trio.Event()
        nursery.start_soon(private.authenticate, ask(1, 0))
        await trio.testing.wait_all_tasks_blocked()
        node.backend.prune(now_ms() + 1, 0, 200)
        box.reading.set()
        await trio.testing.wait_all_tasks_blocked()
        assert box.offsets == list(range(1, 101))
        assert box.left == [(4408, "private events are not kept for so long")]


async def test_a_client_that_cannot_take_an_event_is_dropped_alone(
    autojump_clock: trio.abc.Clock,
) -> None:
    async with private_node() as node, node.session() as (good, a), node.session() as (bad, b):
        await a.authenticate(ask(1))
        await b.authenticate(ask(1))
        bad.full = True
        await node.settle(1, 1)
        assert good.offsets == [1, 2]
        assert (bad.offsets, bad.left[0][0]) == ([], 4408)


async def test_a_hole_in_the_numbers_is_no_silence(autojump_clock: trio.abc.Clock) -> None:
    """A batch that failed was on the disk all the same: the client resumes what it lacks."""
    async with private_node() as node, node.session() as (box, private):
        await private.authenticate(ask(1))
        row = event("lost", "balance.update", balance(), 1)
        node.backend.settle([expand(row, now_ms(), "engine")])
        await node.settle(1)
        assert box.left == [(4408, "private events were missed; resume with since")]
        assert box.offsets == []
    async with node.session() as (box, private):
        await private.authenticate(ask(1, 0))


async def test_what_is_counted_already_does_not_come_after(
    autojump_clock: trio.abc.Clock,
) -> None:
    """Committed, not yet published, and somebody looks up where the stream ends."""
    async with private_node() as node, node.session() as (box, private):
        row = expand(event("early", "balance.update", balance(), 1), now_ms(), "engine")
        committed = node.backend.settle([row])
        await private.authenticate(ask(1))
        assert box.messages[-1]["offset"] == 1
        node.feed.publish(committed.messages)
        await node.settle(1)
        assert (box.offsets, box.left) == ([2], [])


async def test_three_failures_close_and_a_success_forgives(
    autojump_clock: trio.abc.Clock,
) -> None:
    wrong = Authenticate(Secret("tfk_wrong"), None)
    async with private_node() as node, node.session() as (box, private):
        await private.authenticate(wrong)
        await private.authenticate(wrong)
        await private.authenticate(ask(1))
        await private.authenticate(wrong)
        await private.authenticate(wrong)
        assert box.left == []
        assert private.authenticated
        await node.settle(1)
        assert box.offsets == [1]
        await private.authenticate(wrong)
        assert box.left == [(4401, "authentication failed")]
        errors = box.of("error")
        assert [e["code"] for e in errors] == [1004] * 5
        assert errors[0]["message"] == "token: the API key is not known"


async def test_another_user_on_the_same_connection(autojump_clock: trio.abc.Clock) -> None:
    async with private_node() as node, node.session() as (box, private):
        await private.authenticate(ask(1))
        await node.settle(1)
        await private.authenticate(ask(2))
        await node.settle(1, 2)
        assert [m["event_id"] for m in box.of("balance.update")] == ["1-1", "2-3"]
        assert [m["user_id"] for m in box.of("auth.success")] == [1, 2]


async def test_the_same_user_again_interrupts_nothing(autojump_clock: trio.abc.Clock) -> None:
    async with private_node() as node, node.session() as (box, private):
        await private.authenticate(ask(1))
        await node.settle(1)
        await private.authenticate(ask(1))
        await node.settle(1)
        assert [(m["type"], m["offset"]) for m in box.messages] == [
            ("auth.success", 0), ("balance.update", 1),
            ("auth.success", 1), ("balance.update", 2),
        ]  # fmt: skip
        await private.authenticate(ask(1, 0))
        assert box.offsets == [1, 2, 1, 2]


async def test_an_unreadable_journal_is_said_and_can_be_tried_again(
    autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with private_node() as node, node.session() as (box, private):

        def broken(*_: Any) -> Any:
            raise JournalError("disk I/O error")

        with monkeypatch.context() as patch:
            patch.setattr(node.backend, "head", broken)
            await private.authenticate(evolve(ask(1), id="a"))
        assert [(m["code"], m["id"]) for m in box.messages] == [(1003, "a")]
        assert not private.authenticated
        await private.authenticate(ask(1))
        assert box.messages[-1]["type"] == "auth.success"


async def test_an_unreadable_past_ends_the_private_part(
    autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who is told that it failed is in nobody's stream, and no event comes."""
    async with private_node() as node, node.session() as (box, private):
        await node.settle(1, 1)

        async def broken(*_: Any) -> Any:
            raise JournalError("disk I/O error")

        monkeypatch.setattr(node.feed, "first_page", broken)
        await private.authenticate(ask(1, 0))
        assert [(m["type"], m["code"]) for m in box.messages] == [("error", 1003)]
        assert not private.authenticated
        assert node.feed._streams == {}
        await node.settle(1)
        assert box.offsets == []


async def test_nothing_is_left_behind(autojump_clock: trio.abc.Clock) -> None:
    async with private_node() as node:
        async with node.session() as (_, private):
            await private.authenticate(ask(1))
            assert node.feed._streams.keys() == {1}
        assert node.feed._streams == {}


class Tokens:
    """Lets everybody in, for as long as the token says: ``user:seconds``."""

    def authenticate(self, token: Secret, now: float) -> Identity:
        user, seconds = token.reveal().split(":")
        ends = T_MS + int(float(seconds) * 1000)
        return Identity(int(user), "jwt", ends, float(ends))


def let_in(user: int, seconds: float) -> Authenticate:
    return Authenticate(Secret(f"{user}:{seconds}"), None)


async def test_a_token_ends_with_a_warning_before(autojump_clock: trio.abc.Clock) -> None:
    async with private_node() as node:
        node.access = evolve(node.access, authenticator=Tokens())
        async with node.session() as (box, private):
            await private.authenticate(let_in(1, 300))
            assert box.messages[-1]["expires_at"] == T_MS + 300_000
            await trio.sleep(239)
            assert len(box.messages) == 1
            await trio.sleep(2)
            assert box.messages[-1] == {
                "type": "auth.expiring", "user_id": 1, "expires_at": T_MS + 300_000,
            }  # fmt: skip
            await node.settle(1)
            await trio.sleep(58)
            assert private.authenticated
            await trio.sleep(2)
            assert (box.messages[-1]["type"], box.messages[-1]["code"]) == ("error", 1004)
            assert not private.authenticated
            await node.settle(1)
            assert box.offsets == [1]
            assert box.left == []


async def test_a_new_token_puts_the_end_off(autojump_clock: trio.abc.Clock) -> None:
    async with private_node() as node:
        node.access = evolve(node.access, authenticator=Tokens())
        async with node.session() as (box, private):
            await private.authenticate(let_in(1, 100))
            await trio.sleep(50)
            assert box.messages[-1]["type"] == "auth.expiring"
            await private.authenticate(let_in(1, 1000))
            await trio.sleep(800)
            assert box.of("error") == []
            assert len(box.of("auth.expiring")) == 1
            await trio.sleep(200)
            assert len(box.of("error")) == 1


async def test_a_key_after_a_token_never_ends(autojump_clock: trio.abc.Clock) -> None:
    async with private_node() as node:
        keys, node.access = node.access.authenticator, evolve(node.access, authenticator=Tokens())
        async with node.session() as (box, private):
            await private.authenticate(let_in(1, 100))
            private._access = evolve(node.access, authenticator=keys)
            await private.authenticate(ask(1))
            await trio.sleep(10_000)
            assert private.authenticated
            assert box.of("error") == []


async def test_no_token_in_a_log_or_an_answer(autojump_clock: trio.abc.Clock) -> None:
    with structlog.testing.capture_logs() as lines:
        async with private_node() as node, node.session() as (box, private):
            await private.authenticate(ask(1))
            await private.authenticate(Authenticate(Secret(KEYS[1] + "x"), None))
            await private.authenticate(Authenticate(Secret("eyJhbGciOi.eyJzdWIi.c2ln"), None))
    assert len(lines) == 3
    told = repr(lines) + repr(box.messages) + repr(ask(1))
    assert KEYS[1] not in told
    assert "eyJ" not in told


@define
class Follower:
    """One program of one user, over any number of connections."""

    user: int
    seen: list[list[tuple[int, str]]] = field(factory=list)
    """Runs of (offset, event id); a new run where the server could not recover."""
    last: int | None = None

    def take(self, message: dict[str, Any]) -> None:
        if message["type"] == "auth.success":
            assert message["user_id"] == self.user
            if not message.get("recovered"):
                self.seen.append([])
                self.last = message["offset"]
        elif message["type"] == "balance.update":
            assert self.last is not None
            assert message["offset"] == self.last + 1, "a gap or a duplicate"
            self.last = message["offset"]
            self.seen[-1].append((message["offset"], message["event_id"]))


@define(eq=False, kw_only=True)
class Wire(Box):
    """One connection of a follower; after the cut nothing arrives."""

    follower: Follower
    cut: trio.Event = field(factory=trio.Event)

    def reply(self, text: str) -> None:
        if not self.cut.is_set():
            self.follower.take(json.loads(text))

    def leave(self, code: int = 0, reason: str = "", last_message: str = "") -> None:
        self.cut.set()


steps = st.lists(
    st.one_of(
        st.tuples(st.just("settle"), st.lists(st.integers(1, 3), min_size=1, max_size=250)),
        st.tuples(st.just("settle"), st.lists(st.integers(1, 3), min_size=1, max_size=3)),
        st.tuples(st.just("cut"), st.integers(0, 5)),
        st.tuples(st.just("fill"), st.integers(0, 5)),
        st.tuples(st.just("wait"), st.integers(1, 30)),
        st.tuples(st.just("prune"), st.integers(1, 50)),
    ),
    max_size=25,
)


@given(steps, st.integers(0, 2**32))
@settings(max_examples=80, deadline=None)
def test_nobody_ever_sees_a_gap_a_duplicate_or_anothers_event(script: list[Any], seed: int) -> None:
    followers = [Follower(1 + n % 3) for n in range(6)]
    chance = random.Random(seed)
    nodes: list[PrivateNode] = []

    async def follow(node: PrivateNode, follower: Follower, boxes: dict[int, Any], n: int) -> None:
        """Connect, resume, be cut off, and again."""
        while True:
            wire = boxes[n] = Wire(follower=follower)
            async with node.session(wire) as (_, private), trio.open_nursery() as nursery:
                nursery.start_soon(private.authenticate, ask(follower.user, follower.last))
                await wire.cut.wait()
                nursery.cancel_scope.cancel()
            await trio.sleep(chance.random() * 0.02)

    async def main() -> None:
        async with private_node() as node, trio.open_nursery() as nursery:
            nodes.append(node)
            node.journal.lag = lambda: chance.random() * 0.01  # type: ignore[method-assign]
            boxes: dict[int, Any] = {}
            for n, follower in enumerate(followers):
                nursery.start_soon(follow, node, follower, boxes, n)
            await trio.sleep(0.1)
            for what, value in script:
                if what == "settle":
                    nursery.start_soon(node.settle, *value)
                    await trio.sleep(chance.random() * 0.02)
                elif what == "wait":
                    await trio.sleep(value / 1000)
                elif what == "prune":
                    node.backend.prune(now_ms() + 1, 0, value)
                elif what == "fill":
                    boxes[value].full = True
                else:
                    boxes[value].leave()
            await trio.sleep(10)
            nursery.cancel_scope.cancel()

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    (node,) = nodes
    for follower in followers:
        truth = {
            m.offset: json.loads(f"{{{m.body}}}")["event_id"]
            for m in node.published
            if m.user_id == follower.user
        }
        for run in follower.seen:
            assert all(truth[offset] == event_id for offset, event_id in run)
            assert all(event_id.startswith(f"{follower.user}-") for _, event_id in run)
        assert follower.last == len(truth), "behind for ever"


async def test_what_is_counted_of_private_events(autojump_clock: trio.abc.Clock) -> None:
    async with private_node() as node, node.session() as (one, a), node.session() as (_two, b):
        metrics = node.metrics

        def count(name: str, *labels: str) -> float:
            metric = getattr(metrics, name)
            value: float = (metric.labels(*labels) if labels else metric)._value.get()
            return value

        await a.authenticate(Authenticate(Secret("tfk_wrong"), None))
        assert (count("auths", "refused"), count("request_errors", "1004")) == (1, 1)
        await a.authenticate(ask(1, 0))
        await b.authenticate(ask(1, 99))
        assert count("auths", "accepted") == 2
        assert count("private_resumes", "recovered") == 1
        assert count("private_resumes", "failed") == 1
        await node.settle(1, 1, 2)
        assert count("private_messages") == 4  # two for each of the two; nobody is there for 2
        fresh = PrivateMessage(1, 3, '"type":"x"', now_ms() - 1_500)
        node.feed.publish([fresh])
        assert metrics.private_latency.sum_s == pytest.approx(1.5)
        assert one.messages[-1]["offset"] == 3
        node.feed.publish([evolve(fresh, offset=4, received_ms=now_ms() + 5_000)])
        assert metrics.private_latency.sum_s == pytest.approx(1.5)  # never below zero
        node.feed.publish([evolve(fresh, offset=4)])
        assert one.messages[-1]["offset"] == 4
        assert count("private_messages") == 8


async def test_the_end_of_a_token_to_the_second(autojump_clock: trio.abc.Clock) -> None:
    async with private_node() as node:
        warning_s = node.access.settings.expiry_warning_s
        node.access = evolve(node.access, authenticator=Tokens())
        async with node.session() as (box, private):
            await private.authenticate(let_in(1, 300))
            await trio.sleep(300 - warning_s - 0.01)
            assert box.of("auth.expiring", "error") == []
            await trio.sleep(0.02)
            assert len(box.of("auth.expiring")) == 1
            await trio.sleep(warning_s - 0.02)
            assert private.authenticated
            await trio.sleep(0.02)
            assert not private.authenticated
            assert node.metrics.request_errors.labels("1004")._value.get() == 1


async def test_a_calendar_that_is_set_while_one_waits_is_noticed_within_a_minute(
    autojump_clock: trio.abc.Clock,
) -> None:
    ahead_ms = 0.0
    async with private_node() as node:
        node.access = evolve(
            node.access, authenticator=Tokens(), now_ms=lambda: now_ms() + ahead_ms
        )
        async with node.session() as (box, private):
            await private.authenticate(let_in(1, 10_000))
            await trio.sleep(30)
            ahead_ms = 20_000_000.0
            await trio.sleep(29)
            assert private.authenticated
            await trio.sleep(2)
            assert not private.authenticated
            assert [m["type"] for m in box.messages[1:]] == ["auth.expiring", "error"]


async def test_nobody_is_kept_for_a_user_that_has_left(autojump_clock: trio.abc.Clock) -> None:
    async with private_node() as node, node.session() as (_one, a), node.session() as (two, b):
        await a.authenticate(ask(1))
        await b.authenticate(ask(1))
        a.close()
        assert set(node.feed._streams) == {1}
        await node.settle(1)
        assert two.offsets == [1]
        b.close()
        assert node.feed._streams == {}


async def test_lines_about_tokens_are_sampled(autojump_clock: trio.abc.Clock) -> None:
    """Strangers cannot write the log, nor can a user who says who he is over and over."""
    wrong = Authenticate(Secret("tfk_wrong"), None)
    async with private_node() as node:
        with structlog.testing.capture_logs() as lines:
            for _ in range(102):
                async with node.session() as (_, private):
                    for _ in range(3):
                        await private.authenticate(wrong)
            async with node.session() as (_, private):
                for _ in range(50):
                    await private.authenticate(ask(1))
    said = [line["event"] for line in lines]
    assert said.count("client.auth_failed") == 3
    assert said.count("client.authenticated") == 1
    assert said.count("client.authenticated_again") == 3


class Bell:
    """A listener that says everything at once, or nothing but once a second."""

    def __init__(self, *, deaf: bool = False) -> None:
        self.deaf, self._users, self._event = deaf, set[int](), trio.Event()

    async def run(self) -> Any:
        await trio.sleep_forever()

    def look_again(self, user_id: int) -> None:
        self._users.add(user_id)
        self._event.set()

    def hear(self, users: set[int]) -> None:
        if not self.deaf:
            self._users |= users
            self._event.set()

    async def news(self) -> set[int] | None:
        with trio.move_on_after(1):
            await self._event.wait()
        found, self._users, self._event = self._users, set[int](), trio.Event()
        return found or None


class SharedMemory:
    """One journal in memory, as a process sees it that is not alone with it."""

    def __init__(self, rows: MemoryJournalBackend, bells: list[Bell], *, deaf: bool) -> None:
        self._rows, self._bells, self.listener = rows, bells, Bell(deaf=deaf)
        bells.append(self.listener)
        self.broken = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._rows, name)

    def settle(self, events: Any) -> Any:
        settled = self._rows.settle(events)
        for bell in self._bells:
            if bell is not self.listener:
                bell.hear({message.user_id for message in settled.messages})
        return settled

    def heads(self, users: Any) -> dict[int, int]:
        if self.broken:
            raise JournalError("away")
        return {user: self._rows.head(user) for user in users}


class SharedNode(PrivateNode):
    """One of several processes on one journal."""

    def __init__(
        self, rows: MemoryJournalBackend, bells: list[Bell], *, deaf: bool = False
    ) -> None:
        super().__init__()
        self.shared: Any = SharedMemory(rows, bells, deaf=deaf)
        self.journal = Lagging(
            self.shared, SettlementSettings(), in_threads=False, now_ms=now_ms,
            metrics=self.metrics, shared=self.shared,
        )  # fmt: skip
        self.feed = PrivateFeed(self.journal, now_ms, self.metrics, self.journal)
        self.access = PrivateAccess(Authenticator(AUTH), self.feed, AUTH, now_ms, self.metrics)

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.journal.run, self.publish)
            nursery.start_soon(self.feed.follow)


@pytest.mark.parametrize("deaf", [False, True])
@pytest.mark.parametrize("seed", range(4))
async def test_what_several_processes_take_in_reaches_every_client_in_order(
    seed: int, deaf: bool, autojump_clock: trio.abc.Clock
) -> None:
    """Two processes number one user's events in turn, everything takes its time, and clients come
    in between; notifications come, or none does."""
    chance = random.Random(seed)
    rows, bells = MemoryJournalBackend(T_MS), list[Bell]()
    nodes = [SharedNode(rows, bells, deaf=deaf) for _ in range(2)]
    for number, each in enumerate(nodes):
        each.journal.lag = lambda: chance.random() * 0.05
        each._number = number * 1000
    boxes: list[Box] = []

    async def publish(node: SharedNode) -> None:
        for _ in range(60):
            await trio.sleep(chance.random() * 0.1)
            await node.settle(*chance.choices((1, 1, 2), k=2))

    async def sit(node: SharedNode, after_s: float) -> None:
        await trio.sleep(after_s)
        async with node.session() as (box, session):
            boxes.append(box)
            await session.authenticate(ask(1))
            await trio.sleep(30)

    async with trio.open_nursery() as nursery:
        for node in nodes:
            nursery.start_soon(node.run)
        async with trio.open_nursery() as clients:
            for node in nodes:
                clients.start_soon(publish, node)
                for _ in range(3):
                    clients.start_soon(sit, node, chance.random() * 4)
        nursery.cancel_scope.cancel()
    assert rows.head(1) > 60
    for box in boxes:
        assert box.left == []
        (began,) = [m["offset"] for m in box.of("auth.success")]
        assert box.offsets == list(range(began + 1, rows.head(1) + 1))
    assert len(boxes) == 6


async def test_an_own_event_behind_one_of_others_brings_both_at_once(
    autojump_clock: trio.abc.Clock,
) -> None:
    rows, bells = MemoryJournalBackend(T_MS), list[Bell]()
    one, two = SharedNode(rows, bells, deaf=True), SharedNode(rows, bells)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.run)
        nursery.start_soon(two.run)
        async with one.session() as (box, session):
            await session.authenticate(ask(1))
            one._number = 500  # event ids of its own
            await trio.sleep(1.01)  # the next look at everybody is a second away
            await two.settle(1)
            await one.settle(1)
            await trio.sleep(0.1)
            assert box.offsets == [1, 2]
        nursery.cancel_scope.cancel()


async def test_a_journal_that_cannot_be_read_is_said_once_and_tried_again(
    autojump_clock: trio.abc.Clock,
) -> None:
    rows, bells = MemoryJournalBackend(T_MS), list[Bell]()
    one, two = SharedNode(rows, bells), SharedNode(rows, bells)
    with structlog.testing.capture_logs() as logs:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(one.run)
            nursery.start_soon(two.run)
            async with one.session() as (box, session):
                await session.authenticate(ask(1))
                one.shared.broken = True
                await two.settle(1)
                await trio.sleep(10)
                assert box.offsets == []
                one.shared.broken = False
                await trio.sleep(2)
                assert box.offsets == [1]
            nursery.cancel_scope.cancel()
    assert [line["event"] for line in logs if "journal" in line["event"]] == ["journal.read_failed"]


async def test_what_others_wrote_and_is_gone_ends_the_connection(
    autojump_clock: trio.abc.Clock,
) -> None:
    rows, bells = MemoryJournalBackend(T_MS), list[Bell]()
    one, two = SharedNode(rows, bells, deaf=True), SharedNode(rows, bells)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.run)
        nursery.start_soon(two.run)
        async with one.session() as (box, session):
            await session.authenticate(ask(1))
            one.shared.broken = True
            await two.settle(1, 1)
            rows.prune(float("inf"), 0, 1)
            one.shared.broken = False
            await trio.sleep(2)
            assert box.left == [(4408, "private events are not kept for so long")]
        nursery.cancel_scope.cancel()

"""The operators' pages over all workers: one sum of their counters, one list of their clients."""

import structlog
import trio

from ..push.edge.routes import with_list
from . import frames, questions
from .link import Link, Sources
from .pipe import NoAnswer

log = structlog.get_logger()

_PAGE_S = 2.0


class AllPages:
    """:class:`.OperatorPages` of a service with workers; ``links`` are those of now, by worker."""

    def __init__(self, links: dict[int, Link], sources: Sources) -> None:
        self.links, self._sources, self._metrics = links, sources, sources.metrics
        self._metrics.waiting_bytes.set_function(lambda: self.sum(4))

    def sum(self, gauge: int) -> float:
        """Of one of the gauges of :class:`.frames.Report`."""
        return sum(link.gauges[gauge] for link in self.links.values())

    async def metrics(self) -> bytes:
        """See :class:`.OperatorPages`.  A worker that does not answer counts as it last did."""
        await self._ask_all(questions.REPORT)
        return self._metrics.exposition()

    async def status(self) -> str:
        """See :class:`.OperatorPages`."""
        found = await self._ask_all(questions.CLIENTS)
        entries = [text for body in found.values() for text in questions.texts_of(body)]
        report = self._sources.view.report
        workers = [
            {
                "worker": link.worker,
                "pid": link.pid,
                "clients": int(link.gauges[0]),
                "subscriptions": int(link.gauges[1]),
                "memory_bytes": int(link.memory_bytes),
                "cpu_s": round(link.cpu_s, 2),
                "ready": link.ready.is_set(),
            }
            for _, link in sorted(self.links.items())
        ]
        return with_list({**report.status(), "workers": workers}, "clients", entries)

    async def _ask_all(self, what: str) -> dict[int, bytes]:
        found: dict[int, bytes] = {}

        async def ask(link: Link) -> None:
            try:
                found[link.worker] = await link.pipe.ask(what, b"", _PAGE_S)
            except NoAnswer as error:
                log.warning("worker.no_answer", worker=link.worker, what=what, problem=str(error))

        async with trio.open_nursery() as nursery:
            for link in self.links.values():
                if link.ready.is_set():
                    nursery.start_soon(ask, link)
        return {worker: found[worker] for worker in sorted(found)}

    def note(self, link: Link, report: frames.Report) -> None:
        link.gauges = report.gauges
        link.memory_bytes, link.cpu_s = report.memory_bytes, report.cpu_s
        metrics, name = self._metrics, str(link.worker)
        metrics.absorb(report.counts)
        metrics.worker_memory.labels(name).set(report.memory_bytes)
        metrics.worker_cpu.labels(name).set(report.cpu_s)
        metrics.worker_clients.labels(name).set(report.gauges[0])
        self.sum_up()

    def sum_up(self) -> None:
        """What is a sum over all workers, or the most of any."""
        metrics = self._metrics
        metrics.clients.set(self.sum(0))
        metrics.subscriptions.set(self.sum(1))
        metrics.queued_bytes.set(self.sum(2))
        most = (link.gauges[3] for link in self.links.values())
        metrics.most_queued_bytes.set(max(most, default=0.0))
        metrics.workers.set(sum(link.ready.is_set() for link in self.links.values()))

    def forget(self, worker: int) -> None:
        """It is gone; what it counted stays."""
        metrics, name = self._metrics, str(worker)
        for gauge in (metrics.worker_memory, metrics.worker_cpu, metrics.worker_clients):
            gauge.labels(name).set(0)
        self.sum_up()

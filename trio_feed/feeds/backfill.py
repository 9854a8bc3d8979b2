"""Workers that ask the exchange by REST for what the ledgers miss."""

from collections.abc import Callable
from typing import Never

import structlog
import trio

from ..errors import BadMessage, NetworkError
from ..metrics import Metrics
from ..net.rest import RestClient
from ..venues import RestQuestion, Venue
from .pipeline import Job, Pipeline

_SHORTEST_WAIT_S = 0.001


async def run_worker(
    pipeline: Pipeline,
    rest: RestClient,
    venue: Venue,
    *,
    now_ms: Callable[[], float],
    metrics: Metrics,
) -> Never:
    """Take one due job after the other, for ever.  Several workers share one pipeline."""
    log = structlog.get_logger().bind(venue=venue.NAME)
    while True:
        job = await _next_job(pipeline, now_ms)
        pipeline.begin(job)
        try:
            await _do(job, pipeline, rest, venue)
        except (NetworkError, BadMessage) as error:
            metrics.rest_calls.labels(venue.NAME, type(error).__name__).inc()
            stream = str(job.series or job.symbol)
            log.warning("backfill.failed", stream=stream, problem=str(error))
            pipeline.failed(job)
        else:
            metrics.rest_calls.labels(venue.NAME, "ok").inc()
        finally:
            pipeline.done(job)


async def _next_job(pipeline: Pipeline, now_ms: Callable[[], float]) -> Job:
    """Wait until a job is due."""
    while True:
        await trio.lowlevel.checkpoint()
        job = pipeline.most_due()
        delay_s = float("inf") if job is None else (job.due_ms - now_ms()) / 1000
        if job is not None and delay_s <= 0:
            return job
        with trio.move_on_after(max(delay_s, _SHORTEST_WAIT_S)):
            await pipeline.changed.wait()


async def _do(job: Job, pipeline: Pipeline, rest: RestClient, venue: Venue) -> None:
    if job.series is not None:
        start_ms = pipeline.ledgers[job.series].expected
        question = venue.klines_question(job.series.symbol, job.series.interval, start_ms)
        pipeline.fill_klines(job.series, venue.parse_klines(await _ask(rest, question)))
        return
    first = pipeline.trade_gap(job.symbol)
    if first is not None:
        body = await _ask(rest, venue.trades_question(job.symbol, first))
        pipeline.fill_trades(job.symbol, venue.parse_trades(job.symbol, body))


async def _ask(rest: RestClient, question: RestQuestion) -> bytes:
    return await rest.get(question.path, question.params, weight=question.weight)

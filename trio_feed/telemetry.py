"""OpenTelemetry, where it is wanted: spans of what took time, and the metrics.  Sole importer.

It is the extra ``trio_feed[otel]`` and off unless ``[otel] enabled`` or the standard variables
(``OTEL_EXPORTER_OTLP_ENDPOINT``) say so; https://opentelemetry.io/docs/specs/otel/protocol/exporter/
and .../configuration/sdk-environment-variables/ (2026-01).

A span is added when it is over, with how long it took: nothing is carried through the service for
it, and nothing waits.  The SDK keeps finished spans in a bounded queue of which a thread of its own
sends them; what it cannot keep is lost.  Metrics are read between two turns of the event loop and
sent by another thread.
"""

import importlib.util
import math
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Never

import structlog
import trio
from attrs import frozen

from . import __version__
from .errors import SettingsError
from .settings import OtelSettings

log = structlog.get_logger()

_VARIABLES = (
    "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
)  # fmt: skip
_LAST_EXPORT_S = 1.0
_Value = str | int | float | bool


class Spans:
    """What took time.  This one is for where nobody wants to know."""

    def add(self, name: str, took_s: float, *, error: str = "", **attributes: _Value) -> None:
        """It is over now, and took so long.  ``error``: the kind of what went wrong, empty:
        nothing did."""


@frozen
class Sample:
    """A number of the metrics page.  ``kind``: counter or gauge."""

    name: str
    text: str
    kind: str
    labels: Mapping[str, str]
    value: float


@frozen
class Exporters:
    """Where the SDK sends to, both SDK objects; None: nowhere.  For tests: its in-memory ones."""

    spans: Any = None
    metrics: Any = None


def is_wanted(settings: OtelSettings, environ: Mapping[str, str] | None) -> bool:
    """``[otel] enabled``, or the standard variables.  Raises SettingsError where the library is
    not installed although the settings want it."""
    installed = _is_installed()
    if settings.enabled:
        if not installed:
            raise SettingsError(
                "otel.enabled", 'needs a library: pip install ".[otel]" in the checkout'
            )
        return True
    if environ is None or environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    named = next((name for name in _VARIABLES if environ.get(name)), "")
    if named and not installed:
        log.warning("otel.missing", variable=named, advice='pip install ".[otel]" in the checkout')
    return bool(named) and installed


def _is_installed() -> bool:
    try:
        return importlib.util.find_spec("opentelemetry.exporter.otlp.proto.http") is not None
    except ModuleNotFoundError:  # a package above it
        return False


@asynccontextmanager
async def open_telemetry(
    settings: OtelSettings,
    environ: Mapping[str, str] | None,
    *,
    now_ms: Callable[[], float],
    samples: Callable[[], Iterable[Sample]],
    exporters: Exporters | None = None,
) -> AsyncIterator[Spans]:
    """The spans of the service, and its metrics every ``metrics_interval_s``, while the block runs;
    at its end what waits is sent, within a deadline.  ``now_ms``: unix ms; ``samples`` gives the
    metrics.  Raises SettingsError."""
    if exporters is None and not is_wanted(settings, environ):
        yield Spans()
        return
    exporters = exporters or _otlp(settings)
    resource = _resource(settings, environ or {})
    spans: Spans = Spans()
    ends: list[Callable[[], object]] = []
    if exporters.spans is not None:
        made = _OtelSpans(exporters.spans, resource, now_ms)
        spans = made
        ends.append(made.shutdown)
    async with trio.open_nursery() as nursery:
        if exporters.metrics is not None:
            export = _MetricsExport(exporters.metrics, resource)
            ends.insert(0, export.shutdown)
            nursery.start_soon(
                _run_metrics, export, samples, settings.metrics_interval_s, spans, name="otel"
            )
        try:
            yield spans
        finally:
            nursery.cancel_scope.cancel()
            for end in ends:
                with trio.move_on_after(_LAST_EXPORT_S, shield=True):
                    await trio.to_thread.run_sync(end, abandon_on_cancel=True)


def _otlp(settings: OtelSettings) -> Exporters:
    """OTLP over HTTP; what the settings leave open the library reads in its own variables."""
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    base = settings.endpoint.rstrip("/")
    spans = OTLPSpanExporter(f"{base}/v1/traces" if base else None) if settings.traces else None
    metrics = (
        OTLPMetricExporter(f"{base}/v1/metrics" if base else None) if settings.metrics else None
    )
    return Exporters(spans, metrics)


def _resource(settings: OtelSettings, environ: Mapping[str, str]) -> Any:
    """The variables' name and attributes win over the settings' default name."""
    from opentelemetry.sdk.resources import Resource

    name = settings.service_name or environ.get("OTEL_SERVICE_NAME") or "trio_feed"
    return Resource.create({"service.name": name, "service.version": __version__})


class _OtelSpans(Spans):
    def __init__(self, exporter: Any, resource: Any, now_ms: Callable[[], float]) -> None:
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("trio_feed", __version__)
        self._now_ms = now_ms

    def add(self, name: str, took_s: float, *, error: str = "", **attributes: _Value) -> None:
        from opentelemetry.trace import SpanKind, Status, StatusCode

        end_ns = int(self._now_ms() * 1e6)
        span = self._tracer.start_span(
            name,
            kind=SpanKind.CLIENT if name == "rest.call" else SpanKind.INTERNAL,
            attributes=attributes,
            start_time=end_ns - int(took_s * 1e9),
        )
        if error:
            span.set_status(Status(StatusCode.ERROR, error))
        span.end(end_ns)

    def shutdown(self) -> None:
        """Blocking: sends what waits."""
        self._provider.shutdown()


class _MetricsExport:
    """The last samples, as instruments that the SDK reads when they are sent."""

    def __init__(self, exporter: Any, resource: Any) -> None:
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader

        # An endless interval: it sends when it is told to.
        self._reader = PeriodicExportingMetricReader(exporter, export_interval_millis=math.inf)
        self._provider = MeterProvider([self._reader], resource, shutdown_on_exit=False)
        self._meter = self._provider.get_meter("trio_feed", __version__)
        self._known: set[str] = set()
        self._samples: Mapping[str, Sequence[Sample]] = {}

    def take(self, samples: Iterable[Sample]) -> None:
        """In the event loop.  Another table each time: the thread reads the one that it found."""
        found: dict[str, list[Sample]] = {}
        for sample in samples:
            found.setdefault(sample.name, []).append(sample)
        self._samples = found
        for name, rows in found.items():
            if name not in self._known:
                self._known.add(name)
                make = (
                    self._meter.create_observable_counter
                    if rows[0].kind == "counter"
                    else self._meter.create_observable_gauge
                )
                make(name, [partial(self._observe, name)], description=rows[0].text)

    def _observe(self, name: str, _options: Any) -> Iterable[Any]:
        from opentelemetry.metrics import Observation

        return [Observation(each.value, dict(each.labels)) for each in self._samples.get(name, ())]

    def send(self) -> None:
        """Blocking."""
        self._reader.collect()

    def shutdown(self) -> None:
        """Blocking: sends once more."""
        self._provider.shutdown()


async def _run_metrics(
    export: _MetricsExport, samples: Callable[[], Iterable[Sample]], every_s: float, spans: Spans
) -> Never:
    own = trio.CapacityLimiter(1)
    while True:
        await trio.sleep(every_s)
        began = trio.current_time()
        export.take(samples())
        await trio.to_thread.run_sync(export.send, limiter=own, abandon_on_cancel=True)
        spans.add("metrics.export", trio.current_time() - began)

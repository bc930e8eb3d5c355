"""Routes as OpenTelemetry spans and metrics, through ``opentelemetry-api`` alone: the application chooses the SDK.

One span a route, with one child a call of a candidate; while the call runs, the child is the current span, so that an
instrumented client's own spans stand below it (whence its kind, internal). ``gen_ai.*`` attributes are those of
OpenTelemetry's semantic conventions for generative AI (https://opentelemetry.io/docs/specs/semconv/gen-ai/); what they
have no word for is under ``msat.*``. No text of the user's is sent.
"""

from __future__ import annotations

import weakref
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from msat_core.errors import ConfigurationError
from msat_core.forking import Lock
from msat_core.routing.observing import Route, Step

try:
    from opentelemetry import metrics, trace
except ImportError:
    raise ConfigurationError(
        'DecisionTelemetry needs opentelemetry-api: pip install "model-sat-router[otel]".'
    ) from None

SCOPE = "msat"  # the instrumentation scope's name
ROUTE_SPAN, CALL_SPAN = "msat.route", "msat.call"
_NANO = 1_000_000_000  # nanoseconds in a second


@dataclass
class _Spans:
    """The open spans of one route."""

    route: trace.Span
    call: trace.Span | None = None


class DecisionTelemetry:
    """Tells OpenTelemetry of every route.

    Spans: ``msat.route`` with the decision, and below it one ``msat.call`` a call. Counters: ``msat.routes`` (by
    candidate, recommended candidate and status), ``msat.calls`` (by candidate and kind of failure), ``msat.tokens``,
    ``msat.cost`` (USD). Histograms: ``msat.route.duration``, ``msat.call.duration`` (seconds), ``msat.score``.

    Args:
        tracer_provider, meter_provider: None for the application's global ones, whenever they are set.

    Raises:
        ConfigurationError: opentelemetry-api is not installed.
    """

    def __init__(
        self,
        tracer_provider: trace.TracerProvider | None = None,
        meter_provider: metrics.MeterProvider | None = None,
    ) -> None:
        self._tracer = trace.get_tracer(SCOPE, tracer_provider=tracer_provider)
        self._instruments = _Instruments(metrics.get_meter(SCOPE, meter_provider=meter_provider))
        self._open: weakref.WeakKeyDictionary[Route, _Spans] = weakref.WeakKeyDictionary()
        self._lock = Lock()

    def __repr__(self) -> str:
        return "DecisionTelemetry()"

    def __reduce__(self) -> tuple[type[DecisionTelemetry], tuple[()]]:
        """For another process: with that process's global providers."""
        return DecisionTelemetry, ()

    def begin(self, route: Route) -> None:
        """Open the route's span, below the current one."""
        span = self._tracer.start_span(ROUTE_SPAN, start_time=round(route.at * _NANO), attributes=_of_decision(route))
        with self._lock:
            self._open[route] = _Spans(span)

    def attempt(self, route: Route) -> AbstractContextManager[object]:
        """Open the call's span, and make it the current one."""
        spans = self._open[route]
        self._close_call(route, spans, route.steps[-2] if len(route.steps) > 1 else None)
        step = route.steps[-1]
        spans.call = self._tracer.start_span(
            CALL_SPAN,
            context=trace.set_span_in_context(spans.route),
            start_time=_instant(route, step.begun_s),
            attributes={
                "gen_ai.operation.name": "chat",
                "gen_ai.request.model": step.candidate,
                "msat.attempt": len(route.steps),
            },
        )
        return trace.use_span(spans.call, record_exception=False, set_status_on_exception=False)

    def end(self, route: Route) -> None:
        """Close what is open, and count."""
        with self._lock:
            spans = self._open.pop(route)
        self._close_call(route, spans, route.steps[-1] if route.steps else None)
        answer = route.answer
        attributes = {
            "msat.status": route.status,
            "msat.answered_by": None if answer is None else answer.candidate,
            "msat.cost_usd": route.cost_usd,
            **({} if answer is None else _of_usage(answer)),
        }
        spans.route.set_attributes(_stated(attributes))
        if route.status in ("failed", "broken"):
            spans.route.set_status(trace.StatusCode.ERROR)
        spans.route.end(end_time=_instant(route, route.ended_s or 0.0))
        self._instruments.count(route)

    def _close_call(self, route: Route, spans: _Spans, step: Step | None) -> None:
        if spans.call is None or step is None:
            return
        attributes = {**_of_usage(step), "msat.failure": step.failure or None}
        if step.error is not None:
            attributes["error.type"] = type(step.error).__qualname__
        if step.first_token_s is not None:
            attributes["msat.time_to_first_token_s"] = step.first_token_s - step.begun_s
        spans.call.set_attributes(_stated(attributes))
        if step.failure:
            spans.call.set_status(trace.StatusCode.ERROR)
        ended_s = route.elapsed_s if step.ended_s is None else step.ended_s
        spans.call.end(end_time=_instant(route, ended_s))
        spans.call = None


class _Instruments:
    """The counters and histograms."""

    def __init__(self, meter: metrics.Meter) -> None:
        self._routes = meter.create_counter("msat.routes", "{route}", "Routes")
        self._calls = meter.create_counter("msat.calls", "{call}", "Calls of candidates")
        self._tokens = meter.create_counter("msat.tokens", "{token}", "Tokens of answers, as providers count them")
        self._cost = meter.create_counter("msat.cost", "USD", "Cost of answers, by their tokens")
        self._route_s = meter.create_histogram("msat.route.duration", "s", "From the question to the answer's end")
        self._call_s = meter.create_histogram("msat.call.duration", "s", "Of one call of a candidate")
        self._score = meter.create_histogram("msat.score", "1", "P(correct) of the candidate to be asked")

    def count(self, route: Route) -> None:
        """Take in a route that has ended."""
        decision = route.decision
        who = {"msat.candidate": decision.candidate}
        recommended = {"msat.recommended": decision.recommended or decision.candidate}
        self._routes.add(1, {**who, **recommended, "msat.status": route.status, "msat.basis": decision.basis})
        self._route_s.record(route.ended_s or 0.0, {**who, "msat.status": route.status})
        if decision.score is not None:
            self._score.record(decision.score, who)
        if route.cost_usd is not None and route.answer is not None:
            self._cost.add(route.cost_usd, {"gen_ai.request.model": route.answer.candidate})
        for step in route.steps:
            self._count_call(step)

    def _count_call(self, step: Step) -> None:
        of = {"gen_ai.request.model": step.candidate}
        self._calls.add(1, {**of, "msat.failure": step.failure or "none"})
        if step.ended_s is not None:
            self._call_s.record(step.ended_s - step.begun_s, {**of, "msat.failure": step.failure or "none"})
        for kind, n_tokens in (("input", step.usage.input_tokens), ("output", step.usage.output_tokens)):
            if n_tokens is not None:
                self._tokens.add(n_tokens, {**of, "gen_ai.token.type": kind})


def _of_decision(route: Route) -> dict[str, Any]:
    decision, asked = route.decision, route.asked
    names = list(decision.costs_usd)
    return _stated(
        {
            "msat.decision.id": decision.id,
            "msat.policy": asked.policy.digest,
            "msat.zoo": asked.zoo.digest,
            "msat.scorer": asked.scorer,
            "msat.basis": decision.basis,
            "msat.candidate": decision.candidate,
            "msat.recommended": decision.recommended or decision.candidate,
            "msat.propensity": decision.chances.get(decision.candidate, 0.0),
            "msat.score": decision.score,
            "msat.expected_cost_usd": decision.costs_usd.get(decision.candidate),
            "msat.candidates": names,
            "msat.scores": [decision.scores[name] for name in names] if decision.scores.keys() >= set(names) else None,
            "msat.reason": decision.reason,
            "gen_ai.conversation.id": asked.request.conversation,
        }
    )


def _of_usage(step: Step) -> dict[str, Any]:
    return {
        "gen_ai.response.model": step.usage.model,
        "gen_ai.usage.input_tokens": step.usage.input_tokens,
        "gen_ai.usage.output_tokens": step.usage.output_tokens,
    }


def _stated(attributes: dict[str, Any]) -> dict[str, Any]:
    """Attributes that are known; a span has no word for unknown."""
    return {name: value for name, value in attributes.items() if value is not None}


def _instant(route: Route, seconds: float) -> int:
    """Nanoseconds since the epoch, of an instant of the route."""
    return round((route.at + seconds) * _NANO)

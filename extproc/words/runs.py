"""The run that an exchange belongs to, as its client names it. A run belongs to its consumer."""

from __future__ import annotations

from collections.abc import Mapping

from extproc.words.exchange import Exchange, FeatureKey

LABELS = ("run", "session")
"""Labels that name a run; `run` comes before `session`. Headers in `attribution.session` set the second."""
NAMED: FeatureKey[str] = FeatureKey("run")
"""`traceparent` from `_meta` of an MCP message."""
_PARTS = 4  # parts of a traceparent: version, trace, span, flags
_TRACE = 32  # hexadecimal digits of a trace id


def run_of(exchange: Exchange) -> str:
    """Name of the exchange's run: its label `run`, its label `session`, or the trace of its `traceparent`, in this
    order. Empty without any.
    """
    if name := named_by(getattr(exchange.money, "labels", {})):
        return name
    told = exchange.features.get(NAMED) or exchange.request.head.headers.get("traceparent", "")
    if not told:
        return ""
    parts = told.split("-")
    return parts[1] if len(parts) >= _PARTS and len(parts[1]) == _TRACE and parts[1].strip("0") else ""


def named_by(labels: Mapping[str, str]) -> str:
    """Name of the run in labels; empty without one."""
    return next((value for name in LABELS if (value := labels.get(name))), "") if labels else ""

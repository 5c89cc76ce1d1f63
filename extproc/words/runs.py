"""The run that an exchange belongs to, as its client names it. A run belongs to its consumer."""

from __future__ import annotations

from collections.abc import Mapping

from extproc.words.exchange import Exchange, FeatureKey

LABELS = ("run", "session")
"""Labels that name a run, the first one first. `attribution.session` are headers that set the second."""
NAMED: FeatureKey[str] = FeatureKey("run")
"""A `traceparent` in the message itself, as MCP has it in `_meta`."""
_PARTS = 4  # of a traceparent: version, trace, span, flags
_TRACE = 32  # hexadecimal digits


def run_of(exchange: Exchange) -> str:
    """The label `run`, else `session`, else the trace that the client's `traceparent` names; empty without any."""
    if name := named_by(getattr(exchange.money, "labels", {})):
        return name
    told = exchange.features.get(NAMED) or exchange.request.head.headers.get("traceparent", "")
    parts = told.split("-")
    return parts[1] if len(parts) >= _PARTS and len(parts[1]) == _TRACE and parts[1].strip("0") else ""


def named_by(labels: Mapping[str, str]) -> str:
    """The run that labels name; empty for none."""
    return next((value for name in LABELS if (value := labels.get(name))), "")

"""Guardrails in the explanation of a request: `extproc check --explain`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress

import msgspec

from extproc.guardrails import (
    AppliesToSettings,
    Around,
    Detector,
    GuardInput,
    GuardrailSettings,
    Judge,
    RemoteSettings,
    apart,
)
from extproc.guardrails._base import IdleSettings
from extproc.words.errors import GUARDRAIL_UNAVAILABLE, Refusal
from extproc.words.exchange import Exchange, Findings


def unasked(entry: GuardrailSettings) -> GuardrailSettings:
    """The guardrail, or a stand-in for one that asks a service: an explanation sends no text anywhere."""
    if not isinstance(entry, RemoteSettings):
        return entry
    return IdleSettings.model_construct(**{name: getattr(entry, name) for name in GuardrailSettings.model_fields})


async def explain_guardrails(
    guardrails: Sequence[GuardrailSettings], around: Around, exchange: Exchange, body: bytes, also: Sequence[str]
) -> Sequence[str]:
    """The verdict of each guardrail on the request. A verdict names the place of a finding, never its text. `also` are
    models that budgets may send the request to.
    """
    asked = GuardInput(guardrails, lambda _verdict: None, also=also, around=around)
    met: set[str] = set()
    with suppress(Refusal):  # the request names an unknown guardrail, which the explanation reports
        met = {guard.name for guard in asked.chosen(exchange)}
    found = []
    for entry in guardrails:
        if entry.name not in met:
            verdict = "does not apply"
        elif not {"input", "tool_results"} & {*entry.on}:
            made = None if isinstance(entry, RemoteSettings) else entry.build()
            rules = made.rules("").items() if isinstance(made, Judge) else ()
            verdict = "; ".join(["checks the answer", *(f"{kind}: {text}" for kind, text in rules)])
        elif isinstance(entry, RemoteSettings):
            verdict = f"asks {entry.asks(around)}; not asked here"
        else:
            verdict = await _verdict(entry, guardrails, exchange, body)
        found.append(f"{entry.name} ({entry.kind}, {' and '.join(entry.on)}, {entry.action}): {verdict}")
    return found


async def _verdict(
    guardrail: GuardrailSettings, others: Sequence[GuardrailSettings], exchange: Exchange, body: bytes
) -> str:
    # only `block` reports the place of a finding
    alone = guardrail.model_copy(
        update={"action": "block", "actions": {}, "style": "label", "applies_to": AppliesToSettings()}
    )
    bare = apart(exchange)
    bare.findings = Findings()
    bare.request.body = body
    bare.request.json = {
        name: value for name, value in msgspec.json.decode(body).items() if name in exchange.request.json
    }
    try:
        await GuardInput([alone], lambda _verdict: None)(bare)
    except Refusal as refusal:
        if refusal.kind is GUARDRAIL_UNAVAILABLE:
            return "fails" + (", so it is refused" if guardrail.failure == "closed" else "")
        where = shown_place(refusal.param or "", others)
        if exchange.request.ask.unreadable:
            return f"cannot read '{where}'" + (
                ", so it is refused"
                if guardrail.failure == "closed" and guardrail.action in ("block", "ask", "mask")
                else ""
            )
        effect = "acts by its kind" if guardrail.actions else _EFFECTS[guardrail.action]
        return f"finds something in '{where}' and {effect}"
    return "nothing found"


_EFFECTS = {
    "block": "blocks it",
    "ask": "asks a person",
    "mask": "masks it",
    "annotate": "tells the client",
    "audit": "refuses nothing",
}
"""Effects of a finding, by action."""


def shown_place(path: str, guardrails: Sequence[GuardrailSettings]) -> str:
    """A path in the body, hidden if a guardrail finds something in it, because clients choose keys."""
    pieces = (path, *re.split(r"[.\[\]]", path))
    built = [entry.build() for entry in guardrails if not isinstance(entry, RemoteSettings)]
    detectors = [guardrail for guardrail in built if isinstance(guardrail, Detector)]
    hidden = any(True for detector in detectors for piece in pieces for _ in detector.find(piece, "", ""))
    return "…" if hidden else path[:256]

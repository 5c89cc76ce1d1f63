"""Verdicts of guardrails on an exchange, for metrics, the ledger and the audit log. Never the text that was found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from extproc.words.exchange import Exchange


@dataclass(slots=True)
class Verdict:
    """The findings of one guardrail in a request (`on: input`) or an answer (`on: output`)."""

    guardrail: str
    on: str
    action: str  # block, mask, annotate, audit; or failed, or unsearched: parts that cannot be searched, by kind
    kinds: Mapping[str, int] = field(default_factory=dict)  # kind -> findings
    reason: str = ""  # why the guardrail failed: timeout, error, overload, unreadable, too_many


GUARDRAILS = "x-ai-guardrails"
"""Header of requests that names guardrails to add, and of answers with those that found something: `pii:mask`."""

TOLD = ("block", "mask", "annotate", "failed", "unsearched")
"""Actions that clients are told."""


def note(exchange: Exchange, verdict: Verdict) -> None:
    """Enter a verdict into the exchange."""
    exchange.findings.verdicts.append(verdict)
    entry = f"{verdict.guardrail}:{verdict.action}"
    if entry not in exchange.findings.guardrails:
        exchange.findings.guardrails.append(entry)


def told(exchange: Exchange) -> str:
    """The value of the header for the client; empty where there is nothing to tell."""
    return ",".join(entry for entry in exchange.findings.guardrails if entry.rpartition(":")[2] in TOLD)

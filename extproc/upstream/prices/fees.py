"""Fees for calls that providers bill beside tokens, where the bundled catalogue of models has no fee.

Each entry has the day from which it holds, and its source. An entry for a longer pattern wins, then the later one.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from functools import lru_cache

from extproc.words.values import Pattern


@dataclass(slots=True, frozen=True)
class _Fee:
    provider: str  # the provider's name in the catalogue of models
    model: str  # pattern of models' names
    kind: str  # field of `Kinds`
    usd: str | None  # USD for each call; None: billed at a price that depends on the customer
    since: date
    source: str


_OPENAI = "https://platform.openai.com/docs/pricing#built-in-tools"
_ANTHROPIC = "https://platform.claude.com/docs/en/about-claude/pricing#specific-tool-pricing"
_GEMINI = "https://ai.google.dev/gemini-api/docs/pricing"
_AZURE = "https://azure.microsoft.com/en-us/pricing/details/cognitive-services/openai-service/"
_BING = "https://www.microsoft.com/en-us/bing/apis/grounding-pricing"
_XAI = "https://docs.x.ai/developers/models#tools-pricing"

_FEES = (
    _Fee("openai", "*", "searches", "0.01", date(2025, 8, 26), _OPENAI),
    _Fee("openai", "*", "file_searches", "0.0025", date(2025, 3, 11), _OPENAI),
    _Fee("openai", "*", "sessions", "0.03", date(2025, 5, 21), _OPENAI),  # billed for each gigabyte of a container
    _Fee("azure", "*", "searches", None, date(2025, 8, 26), _BING),  # billed by the kind of the Bing resource
    _Fee("azure", "*", "file_searches", "0.0025", date(2025, 3, 11), _AZURE),
    _Fee("azure", "*", "sessions", "0.03", date(2025, 3, 11), _AZURE),
    _Fee("anthropic", "*", "searches", "0.01", date(2025, 5, 7), _ANTHROPIC),
    _Fee("anthropic", "*", "fetches", "0", date(2025, 9, 10), _ANTHROPIC),  # billed by tokens alone
    # Code execution is free beside web tools. Otherwise 1,550 hours a month are free, which answers do not show.
    _Fee("anthropic", "*", "sessions", "0", date(2025, 5, 22), _ANTHROPIC),
    _Fee("google", "*", "searches", "0.014", date(2026, 1, 5), _GEMINI),
    _Fee("google", "gemini-1*", "searches", "0.035", date(2024, 10, 31), _GEMINI),
    _Fee("google", "gemini-2*", "searches", "0.035", date(2025, 2, 5), _GEMINI),
    _Fee("google", "*", "maps", "0.014", date(2026, 1, 5), _GEMINI),
    _Fee("google", "gemini-2*", "maps", "0.025", date(2025, 10, 17), _GEMINI),
    _Fee("google", "*", "fetches", "0", date(2025, 8, 18), _GEMINI),  # URL context: billed by tokens alone
    _Fee("google", "*", "sessions", "0", date(2024, 6, 27), _GEMINI),  # code execution: billed by tokens alone
    _Fee("x-ai", "*", "searches", "0.005", date(2025, 11, 19), _XAI),
    _Fee("x-ai", "*", "file_searches", "0.0025", date(2025, 11, 19), _XAI),
    _Fee("x-ai", "*", "sessions", "0.005", date(2025, 11, 19), _XAI),
)


@lru_cache(maxsize=4096)
def _fees(provider: str | None, model: str, today: date) -> Mapping[str, str | None]:
    found = [fee for fee in _FEES if fee.provider == provider and fee.since <= today and Pattern(fee.model)(model)]
    found.sort(key=lambda fee: (len(fee.model), fee.since))
    return {fee.kind: fee.usd for fee in found}


def known_fees(provider: str | None, model: str, today: date) -> Mapping[str, Decimal]:
    """USD for each call, by the field of `Kinds`, for kinds with a fee at the provider, even if it is 0."""
    return {kind: Decimal(usd) for kind, usd in _fees(provider, model, today).items() if usd is not None}


def unknown_fees(provider: str | None, model: str, today: date) -> Collection[str]:
    """The kinds of calls that the provider bills at a price which only the operator knows."""
    return [kind for kind, usd in _fees(provider, model, today).items() if usd is None]

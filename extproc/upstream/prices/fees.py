"""Amounts that providers bill beside tokens, where the bundled catalogue of models has no price: calls of their tools,
and images by the piece.

Each entry has the day from which it holds, and its source. An entry for a longer pattern wins, then the later one. All
were compared on `CHECKED` with the provider's page, or with the tables of genai-prices 0.2.3 and of litellm 1.110.2
(`model_prices_and_context_window_backup.json`), which quote these pages.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from functools import lru_cache

from extproc.words.values import Pattern

CHECKED = date(2026, 11, 25)


@dataclass(slots=True, frozen=True)
class _Fee:
    provider: str  # the provider's name in the catalogue of models
    model: str  # pattern of models' names
    kind: str  # field of `Kinds`
    usd: str | None  # USD for each call or unit; None: billed by what no answer shows, or at a price of the customer
    since: date
    source: str


_OPENAI = "https://platform.openai.com/docs/pricing#built-in-tools"
_ANTHROPIC = "https://platform.claude.com/docs/en/about-claude/pricing#specific-tool-pricing"
_GEMINI = "https://ai.google.dev/gemini-api/docs/pricing"
_AZURE = "https://azure.microsoft.com/en-us/pricing/details/azure-openai/"  # shows prices to a browser alone
_BING = "https://www.microsoft.com/en-us/bing/apis/grounding-pricing"
_XAI = "https://docs.x.ai/developers/pricing"
_GROQ = "https://groq.com/pricing"

_FEES = (
    _Fee("openai", "*", "searches", "0.01", date(2025, 8, 26), _OPENAI),
    _Fee("openai", "*", "file_searches", "0.0025", date(2025, 3, 11), _OPENAI),
    # A container of a gigabyte for 20 minutes. Since 2026-06-02 it is billed by the minute, 5 at least, which answers
    # do not show: this is the most that a container costs before it expires or is used again.
    _Fee("openai", "*", "sessions", "0.03", date(2026, 3, 31), _OPENAI),
    _Fee("azure", "*", "searches", "0.014", date(2025, 8, 26), _BING),
    _Fee("azure", "*", "file_searches", "0.0025", date(2025, 3, 11), _AZURE),
    _Fee("azure", "*", "sessions", "0.033", date(2025, 3, 11), _AZURE),
    _Fee("anthropic", "*", "searches", "0.01", date(2025, 5, 7), _ANTHROPIC),
    _Fee("anthropic", "*", "fetches", "0", date(2025, 9, 10), _ANTHROPIC),  # billed by tokens alone
    # Code execution is free beside web tools. Otherwise it is 0.05 USD an hour beyond 1,550 free hours a month, which
    # answers do not show.
    _Fee("anthropic", "*", "sessions", "0", date(2025, 5, 22), _ANTHROPIC),
    _Fee("google", "*", "searches", "0.014", date(2026, 1, 5), _GEMINI),
    _Fee("google", "gemini-1*", "searches", "0.035", date(2024, 10, 31), _GEMINI),
    _Fee("google", "gemini-2*", "searches", "0.035", date(2025, 2, 5), _GEMINI),
    _Fee("google", "*", "maps", "0.014", date(2026, 1, 5), _GEMINI),
    _Fee("google", "gemini-2*", "maps", "0.025", date(2025, 10, 17), _GEMINI),
    _Fee("google", "*", "fetches", "0", date(2025, 8, 18), _GEMINI),  # URL context: billed by tokens alone
    _Fee("google", "*", "sessions", "0", date(2024, 6, 27), _GEMINI),  # code execution: billed by tokens alone
    # xAI reports the whole cost of an answer; these count for holds.
    _Fee("x-ai", "*", "searches", "0.005", date(2025, 11, 19), _XAI),
    _Fee("x-ai", "*", "file_searches", "0.0025", date(2025, 11, 19), _XAI),
    _Fee("x-ai", "*", "sessions", "0.005", date(2025, 11, 19), _XAI),
    _Fee("x-ai", "grok-imagine-image*", "images", "0.02", date(2026, 3, 2), _XAI),
    _Fee("x-ai", "grok-imagine-image-pro*", "images", "0.05", date(2026, 4, 3), _XAI),
    _Fee("x-ai", "grok-imagine-image-quality*", "images", "0.05", date(2026, 4, 3), _XAI),
    _Fee("x-ai", "grok-imagine-image-2*", "images", "0.06", date(2026, 11, 2), _XAI),  # the price of the largest size
    # Groq bills hours of code, and searches by their depth, which answers do not show.
    _Fee("groq", "openai/gpt-oss-*", "sessions", None, date(2025, 8, 5), _GROQ),
    _Fee("groq", "openai/gpt-oss-*", "searches", None, date(2025, 8, 5), _GROQ),
)
"""Units that no request of the gateway's endpoints can cause are not here: videos and sound by the second, and the
storage of Gemini's cached contents and of vector stores by the hour.
"""


@lru_cache(maxsize=4096)
def _fees(provider: str | None, model: str, today: date) -> Mapping[str, str | None]:
    found = [fee for fee in _FEES if fee.provider == provider and fee.since <= today and Pattern(fee.model)(model)]
    found.sort(key=lambda fee: (len(fee.model), fee.since))
    return {fee.kind: fee.usd for fee in found}


def known_fees(provider: str | None, model: str, today: date) -> Mapping[str, Decimal]:
    """USD for each call, by the field of `Kinds`, for kinds with a fee at the provider, even if it is 0."""
    found = _fees(provider, model, today).items()
    return {kind: Decimal(usd) for kind, usd in found if usd is not None and kind != "images"}


def unknown_fees(provider: str | None, model: str, today: date) -> Collection[str]:
    """The kinds of calls that the provider bills at a price which only the operator knows."""
    return [kind for kind, usd in _fees(provider, model, today).items() if usd is None]


def known_image(provider: str | None, model: str, today: date) -> Decimal | None:
    """USD for an image of a model that is billed by images alone; None for any other model."""
    usd = _fees(provider, model, today).get("images")
    return None if usd is None else Decimal(usd)

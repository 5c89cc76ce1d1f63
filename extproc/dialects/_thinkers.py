"""Models that think unasked, by name: what a client that leaves early did not see of an answer."""

from __future__ import annotations

import re
from functools import lru_cache

from extproc.dialects._effort import budget, levels
from extproc.dialects.anthropic_messages.models import traits_of

# Models that think before they answer unless told not to, and do not show it, or only in summary. Sources, read in
# November 2026: https://developers.openai.com/api/docs/guides/reasoning,
# https://ai.google.dev/gemini-api/docs/thinking, https://docs.x.ai/docs/guides/reasoning. Since GPT-5.1, OpenAI's do
# not think by themselves, but for `pro` and `codex`.
_THINKERS = re.compile(
    r"(?:^|[/.@])(?:o[134](?:$|-)|gpt-5(?:$|-(?!chat))|gpt-5\.\d+-(?:pro|codex)"
    r"|gemini-(?:2\.5-(?:pro|flash(?!-lite))|[3-9])|grok-(?:4(?!.*non-reasoning)|[5-9]|3-mini))"
)


@lru_cache(maxsize=4096)
def unasked(model: str) -> int:
    """Tokens of hidden thinking to expect of a model that nobody told how much to think; 0 where it does not."""
    if _THINKERS.search(model.lower()) or traits_of(model).default_on:
        return budget("medium")
    return 0


_SAYS_SO = re.compile(r"(?<!non-)reason|thinking|(?:^|[-/])r1(?:$|-)")
_BUDGETED = re.compile(r"(?:^|[/.@])(?:claude|gemini)-")  # these count tokens in place of levels


def unlisted(model: str) -> bool:
    """True for a model that reasons, to judge by its name, and whose levels of thinking are not known."""
    name = model.lower()
    if levels(model) is not None or _BUDGETED.search(name):
        return False
    return unasked(model) > 0 or _SAYS_SO.search(name) is not None

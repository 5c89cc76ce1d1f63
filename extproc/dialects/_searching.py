"""Models that read more than a request holds, by name: they search the web, or call themselves several times."""

from __future__ import annotations

import re
from functools import lru_cache

# Sources, read in November 2026: https://console.groq.com/docs/compound (usage is the sum of all steps),
# https://platform.openai.com/docs/models (gpt-4o-search-preview, gpt-5-search-api, o3-deep-research),
# https://docs.perplexity.ai/getting-started/models, https://openrouter.ai/docs/features/web-search (`:online`),
# https://docs.x.ai/docs/guides/multi-agent.
_SEARCHING = re.compile(
    r"(?:^|[/.@])(?:compound(?:$|-)|gpt-[0-9.o]+(?:-mini)?-search|o[0-9](?:-mini)?-deep-research|sonar(?:$|-)"
    r"|deep-research-|grok-.*multi-agent)|:online$"
)


@lru_cache(maxsize=4096)
def searches(model: str) -> bool:
    """True for a model whose input is legitimately larger than the request, and whose output may be that of steps."""
    return _SEARCHING.search(model.lower()) is not None

"""Differences between model families on Bedrock that remain in Converse, by the model's name.

Sources: https://docs.aws.amazon.com/bedrock/latest/userguide/prompt-caching.html (models with caches, and places of
marks), https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters.html (thinking of each) and
https://docs.aws.amazon.com/nova/latest/nova2-userguide/extended-thinking.html
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from re import split
from typing import Literal

from extproc.dialects._models import Traits, traits_of


@dataclass(slots=True, frozen=True)
class ModelFamily:
    """A model family. `claude` are the traits of a Claude; None for other models."""

    claude: Traits | None = None
    effort: Literal["", "nova", "oss", "openai"] = ""  # words for the effort of other models; empty: none
    nova: bool = False

    @property
    def caches(self) -> bool:
        """True when cache points may stand in the conversation. Only Claude accepts them among tools, and lifetimes."""
        return self.claude is not None or self.nova

    @property
    def knows_errors(self) -> bool:
        """True when tool results may be marked as errors."""
        return self.claude is not None or self.nova


@lru_cache(maxsize=256)
def family_of(model: str) -> ModelFamily:
    """Family of a model's name, or of a profile's id or ARN with that name; an empty family for another name."""
    words = split(r"[^a-z0-9]+", model.lower())
    if "claude" in words:
        return ModelFamily(claude=traits_of(model))
    if "nova" in words:
        return ModelFamily(effort="nova" if words[words.index("nova") + 1 :][:1] == ["2"] else "", nova=True)
    if "openai" in words:
        return ModelFamily(effort="oss" if "oss" in words else "openai")
    return ModelFamily()

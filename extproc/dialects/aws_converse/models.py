"""What families of models on Bedrock take beyond what Converse makes the same for all, read from a model's name.

Sources: https://docs.aws.amazon.com/bedrock/latest/userguide/prompt-caching.html (which models, and where marks may
stand), https://docs.aws.amazon.com/bedrock/latest/userguide/model-parameters.html (how each is asked to think) and
https://docs.aws.amazon.com/nova/latest/nova2-userguide/extended-thinking.html
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from re import split
from typing import Literal

from extproc.dialects.anthropic_messages.models import Traits, traits_of


@dataclass(slots=True, frozen=True)
class Family:
    """`claude` is what a Claude accepts; None for all others."""

    claude: Traits | None = None
    effort: Literal["", "nova", "oss", "openai"] = ""  # how others are asked to think, if they can be
    nova: bool = False

    @property
    def caches(self) -> bool:
        """Whether cache points may stand in the conversation. Only a Claude takes them among tools, and lifetimes."""
        return self.claude is not None or self.nova

    @property
    def knows_errors(self) -> bool:
        """Whether results of tools may say that they are errors."""
        return self.claude is not None or self.nova


@lru_cache(maxsize=256)
def family_of(model: str) -> Family:
    """By a model's name, or a profile's id or ARN that holds it; of any other name nothing is known."""
    words = split(r"[^a-z0-9]+", model.lower())
    if "claude" in words:
        return Family(claude=traits_of(model))
    if "nova" in words:
        return Family(effort="nova" if words[words.index("nova") + 1 :][:1] == ["2"] else "", nova=True)
    if "openai" in words:
        return Family(effort="oss" if "oss" in words else "openai")
    return Family()

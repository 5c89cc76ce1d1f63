"""Models that think, by name.

Source: https://docs.cohere.com/docs/models and https://docs.cohere.com/docs/reasoning
"""

from __future__ import annotations

from functools import lru_cache

_PLAIN = (
    *("command-r-", "command-r7b", "command-light", "command-nightly"),
    *("command-a-03", "command-a-vision", "command-a-translate", "c4ai-", "aya-", "tiny-aya"),
)
_PLAIN_NAMES = frozenset(("command", "command-r", "command-a"))


@lru_cache(maxsize=256)
def reasons(model: str) -> bool:
    """True for models that think, and for unknown names: newer models all do."""
    name = model.rpartition("/")[2].lower()
    return name not in _PLAIN_NAMES and not name.startswith(_PLAIN)

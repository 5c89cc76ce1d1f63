"""Usage of Google's answers.

Source: https://ai.google.dev/api/generate-content#UsageMetadata

Thoughts are counted beside the candidates, except in some answers whose total shows that the candidates include them.
"""

from __future__ import annotations

from typing import Any

from extproc.dialects import token_count
from extproc.dialects._usage import are_counts, first_count, make_usage
from extproc.words.exchange import Kinds, Usage


def read_usage(said: Any) -> Usage | None:
    """Usage of a usageMetadata; None without plausible counts."""
    if not isinstance(said, dict):
        return None
    prompt, candidates, thoughts = (
        said.get(name) for name in ("promptTokenCount", "candidatesTokenCount", "thoughtsTokenCount")
    )
    if not are_counts(prompt, candidates, thoughts):
        return None
    given = (prompt or 0) + first_count(said.get("toolUsePromptTokenCount"))
    written, thought = candidates or 0, thoughts or 0
    if not (thought and token_count(said.get("totalTokenCount")) == given + written):
        written += thought
    cached = first_count(said.get("cachedContentTokenCount"))
    return make_usage(given, written, cached=cached, reasoning=thought, kinds=_kinds(said))


def write_usage(usage: Usage) -> dict[str, Any]:
    written: dict[str, Any] = {
        "promptTokenCount": usage.input_tokens,
        "candidatesTokenCount": usage.output_tokens - usage.reasoning_tokens,
        "totalTokenCount": usage.input_tokens + usage.output_tokens,
    }
    if usage.cached_tokens:
        written["cachedContentTokenCount"] = usage.cached_tokens
    if usage.reasoning_tokens:
        written["thoughtsTokenCount"] = usage.reasoning_tokens
    return written


_DETAILS = {
    "promptTokensDetails": "input",
    "toolUsePromptTokensDetails": "input",
    "cacheTokensDetails": "cached",
    "candidatesTokensDetails": "output",
}
_MODALITIES = {"AUDIO": "audio", "IMAGE": "image", "DOCUMENT": "image", "VIDEO": "video"}
_KINDS = frozenset(Kinds.__dataclass_fields__)


def _kinds(said: dict[str, Any]) -> dict[str, int]:
    """Tokens by modality, if there are any besides text. Documents are priced as images."""
    found: dict[str, int] = {}
    for field, part in _DETAILS.items():
        entries = said.get(field)
        for entry in entries if isinstance(entries, list) else ():
            if isinstance(entry, dict) and (modality := _MODALITIES.get(str(entry.get("modality")))):
                name = f"{modality}_{part}"
                if name in _KINDS:
                    found[name] = found.get(name, 0) + first_count(entry.get("tokenCount"))
    return found

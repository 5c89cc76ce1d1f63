"""Levels of reasoning that each of OpenAI's models takes.

Source: https://platform.openai.com/docs/api-reference/responses/create; the words of the refusal are from
https://github.com/anomalyco/opencode/issues/4451.
"""

from __future__ import annotations

import re

from tests.doubles.answers import Refused

_TAKEN = {
    r"gpt-5-pro": ("high",),
    r"gpt-5(-mini|-nano)?(-\d{4}.*)?$": ("minimal", "low", "medium", "high"),
    r"gpt-5(\.1)?-codex(-mini)?$": ("low", "medium", "high"),
    r"gpt-5\.1-codex-max": ("low", "medium", "high", "xhigh"),
    r"gpt-5\.1$": ("none", "low", "medium", "high"),
    r"gpt-5\.[2-9](-|$)": ("none", "low", "medium", "high", "xhigh"),
    r"gpt-6": ("low", "medium", "high", "xhigh"),
    r"(o[134](-|$)|(openai/)?gpt-oss)": ("low", "medium", "high"),
    r"grok-3-mini": ("low", "high"),
    r"grok-4\.3": ("none", "low", "medium", "high"),
    r"grok-4(-|$)|grok-code": (),
    r"mistral-small-latest": ("none", "high"),
    r"mistral-large|magistral-medium|codestral": (),
    r"qwen/qwen3": ("none", "default"),
}


def check_effort(model: str, effort: object, param: str) -> None:
    """Refuse a level that the model does not take. Other models take any."""
    taken = next((levels for pattern, levels in _TAKEN.items() if re.match(pattern, model)), None)
    if taken is not None and effort is not None and effort not in taken:
        quoted = ", ".join(f"'{level}'" for level in taken)
        message = (
            f"Unsupported value: '{effort}' is not supported with the '{model}' model. Supported values are: {quoted}."
        )
        raise Refused(400, message, param=param, code="unsupported_value")

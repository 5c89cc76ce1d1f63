"""What OpenAI's chat completions demand of tools and of the user's name.

Sources: https://platform.openai.com/docs/api-reference/chat/create (names of functions);
https://github.com/maximhq/bifrost/pull/1000 (`user`); https://github.com/openai/openai-openapi/issues/541 and
https://github.com/danny-avila/LibreChat/issues/14355 (tools beside reasoning)
"""

from __future__ import annotations

import re
from typing import Any

from tests.doubles.answers import Json, Refused
from tests.doubles.efforts import check_effort

LONGEST_USER = 64
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_REFUSES_BOTH = re.compile(r"gpt-5\.([4-9]|\d\d)(?!-chat)")  # tools with an effort
_REASONS_ANYWAY = re.compile(r"gpt-5\.([6-9]|\d\d)(?!-chat)")  # ... and without one


def check(body: Json) -> None:
    """Refuse what the API would refuse."""
    user = body.get("user")
    if isinstance(user, str) and len(user) > LONGEST_USER:
        expected = f"Expected a string with maximum length {LONGEST_USER}, but got a string with length {len(user)}"
        message = f"Invalid 'user': string too long. {expected} instead."
        raise Refused(400, message, param="user", code="string_above_max_length")
    functions = [(f"tools[{index}].function.name", tool) for index, tool in enumerate(_list(body.get("tools")))]
    for where, tool in functions:
        name = tool.get("function", {}).get("name") if isinstance(tool, dict) else None
        if isinstance(name, str) and not _NAME.fullmatch(name):
            message = f"Invalid '{where}': string does not match pattern. Expected a string that matches the pattern "
            raise Refused(400, f"{message}'^[a-zA-Z0-9_-]+$'.", param=where, code="invalid_value")
    model, effort = str(body.get("model")), body.get("reasoning_effort")
    check_effort(model.partition("+")[0], effort, "reasoning_effort")
    if functions and effort != "none" and (_REASONS_ANYWAY if effort is None else _REFUSES_BOTH).match(model):
        message = f"Function tools with reasoning_effort are not supported for {model} in /v1/chat/completions."
        raise Refused(400, f"{message} Please use /v1/responses instead.", param="reasoning_effort")


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []

"""What the double of OpenAI's chat completions refuses."""

import pytest

from tests.doubles.answers import Refused
from tests.doubles.chat_rules import check

TOOL = {"type": "function", "function": {"name": "f"}}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({}, None),
        ({"user": "u" * 64}, None),
        ({"user": "u" * 65}, "user"),
        ({"tools": [TOOL]}, None),
        ({"tools": [{"type": "function", "function": {"name": "f" * 65}}]}, "tools[0].function.name"),
        ({"tools": [{"type": "function", "function": {"name": "a.b"}}]}, "tools[0].function.name"),
        ({"model": "gpt-5.2", "tools": [TOOL], "reasoning_effort": "low"}, None),
        ({"model": "gpt-5.4", "tools": [TOOL]}, None),
        ({"model": "gpt-5.4", "tools": [TOOL], "reasoning_effort": "none"}, None),
        ({"model": "gpt-5.4", "tools": [TOOL], "reasoning_effort": "low"}, "reasoning_effort"),
        ({"model": "gpt-5.6-terra", "tools": [TOOL]}, "reasoning_effort"),
        ({"model": "gpt-5.6-terra"}, None),
    ],
)
def test_what_openai_refuses(fields, param):
    body = {"model": "gpt-4o", "messages": [], **fields}
    if param is None:
        check(body)
        return
    with pytest.raises(Refused) as refused:
        check(body)
    assert refused.value.param == param

import pytest

from extproc.exchange.translation.prompt_cache import LEAST, mark_stable
from extproc.words.messages import EmbeddingPrompt, Message, Prompt, TextPart, Tool, ToolCall, ToolResult

LONG = "word " * (LEAST // 4)
MARK = {"type": "ephemeral"}


def user(text="Hi"):
    return Message("user", [TextPart(text)])


def assistant(text="Hello"):
    return Message("assistant", [TextPart(text)])


def marks(prompt):
    return (
        [bool(tool.cache) for tool in prompt.tools],
        [bool(part.cache) for part in prompt.system],
        [any(getattr(part, "cache", None) for part in message.parts) for message in prompt.messages],
    )


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        (Prompt("m", [user()], [TextPart("Be brief.")]), ([], [False], [False])),
        (Prompt("m", [user()], [TextPart(LONG)]), ([], [True], [True])),
        (Prompt("m", [user()], [TextPart(LONG), TextPart("now")]), ([], [False, True], [True])),
        (Prompt("m", [user()], tools=[Tool("a"), Tool("b", LONG)]), ([False, True], [], [True])),
        (Prompt("m", [user(), assistant(), user(LONG)]), ([], [], [False, False, True])),
        (
            Prompt("m", [user(LONG), assistant(), user(), assistant(), user(), assistant(LONG)]),
            ([], [], [False, False, True, False, True, False]),
        ),
    ],
)
def test_the_ends_of_long_stable_parts_are_marked(prompt, expected):
    mark_stable(prompt)
    assert marks(prompt) == expected


def test_tool_results_are_marked():
    result = ToolResult("c", [TextPart(LONG)])
    prompt = Prompt("m", [user(), Message("assistant", [ToolCall("c", "f", "{}")]), Message("user", [result])])
    mark_stable(prompt)
    assert result.cache == MARK


def test_marks_of_the_client_are_kept():
    prompt = Prompt("m", [Message("user", [TextPart(LONG, cache={"type": "ephemeral", "ttl": "1h"})]), user(LONG)])
    mark_stable(prompt)
    assert marks(prompt) == ([], [], [True, False])


def test_there_are_at_most_four_marks():
    turns = [turn for _ in range(9) for turn in (user(LONG), assistant())]
    prompt = Prompt("m", [*turns, user()], [TextPart(LONG)], tools=[Tool("a", LONG)])
    mark_stable(prompt)
    assert sum(map(sum, marks(prompt))) == 4


def test_embeddings_get_no_marks():
    prompt = EmbeddingPrompt("m", [LONG])
    mark_stable(prompt)
    assert prompt == EmbeddingPrompt("m", [LONG])

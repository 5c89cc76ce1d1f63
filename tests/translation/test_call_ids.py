"""Ids of calls that come twice in a conversation."""

from extproc.exchange.translation.call_ids import distinct_calls
from extproc.words.messages import Message, Prompt, TextPart, ToolCall, ToolResult


def turn(*ids):
    return [
        Message("assistant", [ToolCall(id, "f", "{}") for id in ids]),
        Message("user", [*(ToolResult(id, [TextPart(str(number))]) for number, id in enumerate(ids))]),
    ]


def ids(*turns):
    prompt = Prompt("m", [Message("user", [TextPart("Hi")]), *(message for each in turns for message in each)])
    distinct_calls(prompt)
    calls, results = (
        [[part.id for part in message.parts] for message in prompt.messages[first::2]] for first in (1, 2)
    )
    assert calls == results, "each result goes with its call"
    return calls


def test_ids_of_their_own_stay():
    assert ids(turn("a", "b"), turn("c")) == [["a", "b"], ["c"]]


def test_repeated_ids_become_others_with_their_results():
    """As with providers that number the calls of each answer from 0."""
    assert ids(turn("0", "1"), turn("0"), turn("0", "1")) == [["0", "1"], ["0_2"], ["0_3", "1_4"]]
    assert ids(turn("0", "0")) == [["0", "0_2"]], "of one turn: in their order"
    assert ids(turn("0_2", "0"), turn("0")) == [["0_2", "0"], ["0_3"]], "no id that is taken"


def test_a_call_without_a_result_takes_none_of_a_later_one():
    prompt = Prompt("m", [turn("0")[0], *turn("0")])
    distinct_calls(prompt)
    assert [part.id for message in prompt.messages for part in message.parts] == ["0", "0_2", "0_2"]

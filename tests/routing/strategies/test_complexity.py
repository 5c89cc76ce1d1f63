import importlib
import json
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from extproc.dialects import client_apis
from extproc.routing.strategies import strategies
from extproc.routing.strategies.complexity import WEIGHTS, Complexity, complexity, signals
from extproc.words.chain import Candidate
from extproc.words.dialect import Ask
from extproc.words.exchange import RequestHead, Target
from tests.exchanges import new_exchange

ROOT = Path(__file__).parents[3]


APIS = [*client_apis(), "example"]


@pytest.fixture(scope="module", autouse=True)
def _example(example_dialect):
    """A dialect in the manner of Gemini's."""


def ask(body, size=None, api="openai_chat", **fields):
    """An exchange with that body in that API, valid or not."""
    exchange = new_exchange("id-1", RequestHead("POST", "/v1/chat/completions", {}))
    exchange.request.dialect = client_apis()[api]
    exchange.request.json = body
    exchange.request.body = b" " * (len(json.dumps(body)) if size is None else size)
    exchange.request.ask = Ask("m", **fields)
    return exchange


def chat(*messages, size=None, tools=None, limit=None, images=0, api="openai_chat", **fields):
    """A chat. Messages are texts of the user, or whole messages."""
    said = [{"role": "user", "content": m} if isinstance(m, str) else m for m in messages]
    body = {"model": "m", "messages": said, **fields} | ({"tools": tools} if tools else {})
    return ask(body, size, api, max_output_tokens=limit, images=images)


def score(*messages, **fields):
    return complexity(chat(*messages, **fields))


def system(text):
    return {"role": "system", "content": text}


# --- order


def choices(*limits):
    return [Candidate([Target(str(i), "p", str(i))], max_complexity=most, index=i) for i, most in enumerate(limits)]


EASY, MIDDLE, HARD = "Translate to Danish: good night", "Hello", "Prove that the theorem holds for all finite graphs."


def strategy():
    return Complexity("auto", None, None)


@pytest.mark.parametrize(
    ("text", "order"), [(EASY, [0, 1, 2]), (MIDDLE, [1, 2, 0]), (HARD, [2, 1, 0])], ids=["easy", "middle", "hard"]
)
def test_the_weakest_adequate_choice_comes_first_then_stronger_then_weaker_ones(text, order):
    ordered = strategy().order(choices(0.25, 0.5, 1.0), chat(text))
    assert [choice.index for choice in ordered] == order


def test_when_all_choices_are_too_weak_the_strongest_comes_first():
    ordered = strategy().order(choices(0.1, 0.2, 0.3), chat(HARD))
    assert [choice.index for choice in ordered] == [2, 1, 0]


def test_the_limit_of_a_choice_is_inclusive():
    exchange = chat(MIDDLE)
    at = complexity(exchange)
    assert strategy().order(choices(at, 1.0), exchange)[0].index == 0
    assert strategy().order(choices(at - 0.001, 1.0), exchange)[0].index == 1


@given(st.lists(st.floats(0, 1), min_size=2, max_size=6), st.text(max_size=200))
def test_every_choice_is_in_the_order_once(limits, text):
    given = choices(*sorted(limits))
    ordered = strategy().order(given, chat(text))
    assert sorted(choice.index for choice in ordered) == list(range(len(given)))


def test_the_reason_states_the_score_and_the_limit():
    one, two = chat(MIDDLE), chat(HARD)
    what = strategy()
    first, _ = what.order(choices(0.5, 1.0), one)
    reason = f"complexity {complexity(one):.2f}, up to 0.50"
    assert what.why(first, one) == reason
    what.order(choices(0.5, 1.0), two)
    assert what.why(first, one) == reason


def test_the_strategy_is_found_by_its_name():
    assert strategies()["complexity"] is Complexity


# --- signals


def test_signals_and_weights_have_the_same_names():
    result = {"role": "tool", "content": "ok"}
    assert set(signals(chat("Hello", result, limit=5))) == set(WEIGHTS)


LONG = "The house on the hill has been empty for some years and nobody knows who owns it. "


@pytest.mark.parametrize(
    ("signal", "lower", "higher"),
    [
        ("length", chat(LONG), chat(LONG * 8)),
        ("context", chat(LONG, size=1000), chat(LONG, size=200_000)),
        ("turns", chat(LONG), chat(*[LONG] * 12)),
        ("tools", chat(LONG), chat(LONG, tools=[{}] * 10)),
        ("images", chat(LONG), chat(LONG, images=1)),
        ("limit", chat(LONG, limit=10), chat(LONG, limit=100)),
        ("limit", chat(LONG, limit=100), chat(LONG)),
        ("schema", chat(LONG, response_format={"type": "json_schema"}), chat(LONG)),
        ("schema", chat(LONG, response_format={"type": "json_object"}), chat(LONG, response_format={"type": "text"})),
        ("schema", chat(LONG, tool_choice={"type": "function"}), chat(LONG, tool_choice="auto")),
        (
            "schema",
            ask({"input": LONG}, needs={"json_schema": "text.format"}, api="openai_responses"),
            ask({"input": LONG}, api="openai_responses"),
        ),
        ("effort", chat(LONG, reasoning_effort="none"), chat(LONG, reasoning_effort="low")),
        ("effort", chat(LONG, reasoning_effort="low"), chat(LONG)),
        ("effort", chat(LONG), chat(LONG, reasoning_effort="high")),
        ("effort", chat(LONG, reasoning={"effort": "minimal"}), chat(LONG, reasoning={"effort": "high"})),
        (
            "effort",
            chat(LONG, api="anthropic_messages"),
            chat(LONG, api="anthropic_messages", output_config={"effort": "high"}),
        ),
        ("effort", chat(LONG), chat(LONG, thinking={"type": "enabled", "budget_tokens": 4000})),
        ("result", chat(LONG, {"role": "tool", "content": "ok"}), chat(LONG)),
        ("failure", chat(LONG, {"role": "tool", "content": "ok"}), chat(LONG, {"role": "tool", "content": "FAILED"})),
        ("system", chat(system("You write titles."), "Prove it."), chat(system("You are kind."), "Prove it.")),
        ("task", chat("Summarise this. " + LONG), chat("Look at this. " + LONG)),
        ("task", chat("Look at this. " + LONG), chat("Analyse this. " + LONG)),
        ("simple", chat("Translate and shorten this"), chat("Translate this")),
        ("hard", chat("Analyse it. " + LONG), chat("Analyse and compare the risks and the evidence. " + LONG)),
        ("brief", chat(LONG + "Answer yes or no."), chat(LONG)),
        ("fact", chat("What is a quorum?"), chat("A quorum?")),
        ("fact", chat("What is a quorum?"), chat("What if a quorum is lost?")),
        ("questions", chat(LONG + "What now?"), chat(LONG + "What now? Who helps? Since when?")),
        ("conditions", chat(LONG), chat(LONG + "It must cost at most 5, never more, and work without power.")),
        ("maths", chat(LONG), chat(LONG + "∀x ∃y: x ≤ y")),
        ("maths", chat(LONG), chat(LONG + "\\frac{a}{b} = x^2")),
        ("maths", chat(LONG), chat(LONG + "It is a prime.")),
        ("steps", chat(LONG), chat(LONG + "\n- one\n- two\n3. three\n4) four")),
        ("code", chat(LONG), chat(LONG + "\n```\nx = 1\n```")),
        ("code", chat(LONG), chat(LONG + "\n@@ -1,2 +1,3 @@")),
        ("trace", chat(LONG), chat(LONG + "\nTraceback (most recent call last):\n  ...\nKeyError: 'a'")),
        ("trace", chat(LONG), chat(LONG + "\nmain.c:4:2: error: expected ;")),
    ],
)
def test_each_sign_of_difficulty_raises_the_score(signal, lower, higher):
    less, more = signals(lower), signals(higher)
    assert WEIGHTS[signal] * less.get(signal, 0) < WEIGHTS[signal] * more.get(signal, 0)
    assert complexity(lower) < complexity(higher)


def test_no_score_is_below_0_or_above_1():
    everything = "Prove, compare and analyse the risks and threats. It must never, at most, unless, without. "
    assert score(everything * 40, reasoning_effort="high") == 1
    assert score("Translate this: a", reasoning_effort="none") == 0


def test_a_long_text_to_translate_is_little_harder_than_a_short_one():
    assert score("Translate to Danish: " + LONG * 200) - score("Translate to Danish: " + LONG) < 0.1


def test_a_simple_verb_with_conditions_is_not_a_simple_task():
    task = "Convert this to async code"
    conditions = "It must stop at once, never retry without a delay, and every caller has to keep working"
    assert score(f"{task}. {conditions}.") > score(f"{task}: {LONG}") + 0.3


def test_the_instruction_may_follow_the_material():
    assert (
        score(f"{LONG * 20}\n\nSummarise the above.") < score(LONG * 20) < score(f"{LONG * 20}\n\nAnalyse the above.")
    )


def test_the_last_user_message_decides():
    assert score(HARD, {"role": "assistant", "content": "Done."}, EASY) < 0.3
    assert score(EASY, {"role": "assistant", "content": "Done."}, HARD) > 0.5


@pytest.mark.parametrize(
    ("content", "failed"),
    [
        ("3 passed in 0.1s", False),
        ("3 passed, 0 failed", False),
        ("try:\n    run()\nexcept KeyError:\n    pass", False),
        ("3 passed, 2 failed", True),
        ("KeyError: 'a'", True),
        ("make: command not found", True),
        ([{"type": "text", "text": "x"}, {"type": "text", "text": "FAILED"}], True),
        (None, False),
    ],
)
def test_a_tool_result_is_an_easy_step_unless_it_reads_like_a_failure(content, failed):
    got = signals(chat("Run the tests.", {"role": "tool", "content": content}))
    assert (got["result"], got["failure"]) == (1, failed)


@pytest.mark.parametrize(
    ("api", "result"),
    [
        (
            "openai_chat",
            {"messages": [{"role": "user", "content": HARD}, {"role": "tool", "content": "2 failed"}]},
        ),
        (
            "anthropic_messages",
            {
                "messages": [
                    {"role": "user", "content": HARD},
                    {
                        "role": "user",
                        "content": [{"type": "tool_result", "content": [{"type": "text", "text": "2 failed"}]}],
                    },
                ]
            },
        ),
        (
            "openai_responses",
            {"input": [{"role": "user", "content": HARD}, {"type": "function_call_output", "output": "2 failed"}]},
        ),
        (
            "example",
            {
                "contents": [
                    {"role": "user", "parts": [{"text": HARD}]},
                    {
                        "role": "user",
                        "parts": [{"functionResponse": {"name": "f", "response": {"result": "2 failed"}}}],
                    },
                ]
            },
        ),
    ],
)
def test_tool_results_are_found_in_the_shape_of_each_api(api, result):
    got = signals(ask(result, api=api))
    assert (got["result"], got["failure"], got["task"]) == (1, 1, 1)


@pytest.mark.parametrize(
    ("api", "body"),
    [
        ("openai_chat", {"messages": [{"role": "user", "content": HARD}]}),
        ("openai_chat", {"messages": [{"role": "user", "content": [{"type": "text", "text": HARD}]}]}),
        ("openai_embeddings", {"input": HARD}),
        ("openai_responses", {"input": HARD}),
        (
            "openai_responses",
            {"input": [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": HARD}]}]},
        ),
        ("openai_embeddings", {"input": ["other", HARD]}),
        ("openai_responses", {"input": ["other", HARD]}),
        ("example", {"contents": [{"parts": [{"text": HARD}]}]}),
        ("openai_completions", {"prompt": HARD}),
        ("rerank", {"query": HARD, "documents": []}),
    ],
)
def test_text_is_found_in_bodies_of_other_shapes(api, body):
    assert complexity(ask({"model": "m", **body}, api=api)) > 0.5


@pytest.mark.parametrize(
    ("api", "body"),
    [
        (
            "anthropic_messages",
            {"system": "Classify the message.", "messages": [{"role": "user", "content": HARD}]},
        ),
        (
            "anthropic_messages",
            {
                "system": [{"type": "text", "text": "Classify the message."}],
                "messages": [{"role": "user", "content": HARD}],
            },
        ),
        ("openai_responses", {"instructions": "Classify the message.", "input": HARD}),
        (
            "example",
            {
                "systemInstruction": {"parts": [{"text": "Classify the message."}]},
                "contents": [{"parts": [{"text": HARD}]}],
            },
        ),
        (
            "openai_chat",
            {
                "messages": [
                    {"role": "developer", "content": "Classify the message."},
                    {"role": "user", "content": HARD},
                ]
            },
        ),
    ],
)
def test_a_simple_task_in_the_system_prompt_lowers_the_score(api, body):
    assert complexity(ask(body, api=api)) < 0.3


def test_a_long_system_prompt_is_not_a_task():
    assert score(system("Classify the message. " + LONG * 20), HARD) > 0.5


# --- arbitrary bodies, and bounded work

FIELDS = [
    *("messages", "input", "contents", "role", "content", "parts", "text", "type", "output", "system", "instructions"),
    *("functionResponse", "response", "result", "tools", "tool_choice", "response_format", "reasoning", "effort"),
    *("reasoning_effort", "thinking", "output_config", "prompt"),
]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()) | st.just("```\n@@ ^ Error: ?"),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(FIELDS) | st.text(), inner, max_size=4),
    max_leaves=20,
)


each_api = pytest.mark.parametrize("api", APIS)


@each_api
@given(st.dictionaries(st.sampled_from(FIELDS) | st.text(), JSON, max_size=6), st.integers(0, 10**9), st.booleans())
@example({"messages": [{"role": "user", "content": "\ud800 ?"}]}, 0, False)  # half of a surrogate pair
@example({"messages": [{"role": ["user"], "type": {}, "content": {"content": 5}}]}, 0, False)
@example({"messages": [None, 5, "x", []], "tools": {}, "reasoning_effort": {}, "thinking": []}, 0, True)
@example({}, 10**9, True)
def test_any_body_has_a_score_from_0_to_1(api, body, number, is_limit):
    exchange = ask(body, number % 100, api, max_output_tokens=number if is_limit else None, image_bytes=number)
    assert 0 <= complexity(exchange) <= 1
    assert set(signals(exchange)) <= set(WEIGHTS)
    assert all(-1 <= value <= 1 for value in signals(exchange).values())


@each_api
@given(st.lists(JSON, max_size=5))
def test_any_messages_have_a_score_from_0_to_1(api, messages):
    said = [{"role": "user", "content": message, "parts": message} for message in messages]
    for body in (said, messages):
        assert 0 <= complexity(ask(dict.fromkeys(("messages", "input", "contents", "prompt"), body), api=api)) <= 1


class Looked:
    """The number of characters and items that were read."""

    count = 0


def refuse(*args, **kwargs):
    raise AssertionError("looks at all of it")


class Watched(str):
    """A string that counts the characters cut from it and refuses to be read whole."""

    __slots__ = ()

    def __getitem__(self, key):
        found = super().__getitem__(key)
        Looked.count += len(found)
        return found

    __iter__ = __contains__ = find = count = lower = encode = split = partition = rpartition = translate = refuse
    strip = startswith = endswith = replace = index = rfind = splitlines = casefold = upper = __add__ = refuse


class WatchedList(list):
    def __getitem__(self, key):
        found = super().__getitem__(key)
        Looked.count += len(found) if isinstance(key, slice) else 1
        return found

    __iter__ = __contains__ = __reversed__ = index = count = copy = __add__ = refuse


BIG = 20 << 20


@pytest.mark.parametrize(
    ("build", "most", "api"),
    [
        (lambda: {"messages": [{"role": "user", "content": Watched("why so? " * (BIG // 8))}]}, 3072, "openai_chat"),
        (lambda: {"messages": [{"role": "user", "content": Watched("\n" * BIG)}]}, 3072, "openai_chat"),
        (lambda: {"messages": [{"role": "user", "content": Watched("é" * BIG)}]}, 3072, "openai_chat"),
        (lambda: {"messages": [{"role": "tool", "content": Watched("x" * BIG)}]}, 3072, "openai_chat"),
        (
            lambda: {
                "messages": [{"role": "system", "content": Watched("x" * BIG)}, {"role": "user", "content": "hi"}]
            },
            8,
            "openai_chat",
        ),
        (lambda: {"input": Watched("x" * BIG)}, 3072, "openai_responses"),
        (lambda: {"messages": WatchedList([{"role": "user", "content": "hi"}] * 100_000)}, 8, "openai_chat"),
        (lambda: {"messages": WatchedList([{"role": "assistant", "content": "hi"}] * 100_000)}, 100, "openai_chat"),
        (
            lambda: {
                "messages": [{"role": "user", "content": WatchedList([{"type": "text", "text": "hi"}] * 100_000)}]
            },
            100,
            "openai_chat",
        ),
        (lambda: {"input": WatchedList([1] * 1_000_000)}, 100, "openai_responses"),
        (
            lambda: {"messages": [{"role": "user", "content": "hi"}], "tools": WatchedList([{}] * 100_000)},
            0,
            "openai_chat",
        ),
    ],
)
def test_of_20_mib_no_more_is_read_than_of_a_few_kib(build, most, api):
    exchange = ask(build(), BIG, api)
    Looked.count = 0
    complexity(exchange)
    assert Looked.count <= most


def test_deep_nesting_is_not_followed():
    content = LONG
    for _ in range(50_000):
        content = [content]
    assert signals(ask({"messages": [{"role": "user", "content": content}]}, 0))["length"] == 0


# --- the evaluation


@pytest.fixture(scope="module")
def bench():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT)
        yield importlib.import_module("bench.complexity")


def test_the_evaluation_is_as_good_as_documented(bench):
    cases = bench.load()
    tuned, held_out = ([case for case in cases if case.set == part] for part in ("tune", "held_out"))
    assert len(held_out) * 3 >= len(cases) - 2
    assert bench.share(tuned).accuracy >= 0.90  # measured 92%
    assert bench.share(held_out).accuracy >= 0.90  # measured 94%

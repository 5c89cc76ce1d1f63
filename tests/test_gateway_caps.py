"""No silent cap: what a request without a limit of its output holds, and what is told where the gateway sets one."""

import json

import pytest

from extproc.dialects._models import known_output
from extproc.words.actions import Continue, LocalReply
from tests.talk import ANSWER, QUESTION, STREAMED, answers, asks, error, event, sends, streams, talk

MODELS = "models: {m: {provider: a, model: %s}, n: {provider: b}}\n"
INPUT = len(json.dumps(QUESTION))


def budget(**fields):
    fields = {"name": "t", "unit": "tokens", "limit": 10_000_000, "window": "hour"} | fields
    return "budgets: [{" + ", ".join(f"{name}: {value}" for name, value in fields.items()) + "}]\n"


async def begin(gateway, body=QUESTION, path="/v1/chat/completions"):
    """A request on its way, and what its budget holds."""
    stream = gateway.stream()
    await asks(path)(stream)
    onward = await sends(body)(stream)
    return stream, onward, (await gateway.level("t", 3600))[1]


async def told(stream):
    return (await answers()(stream)).set_headers.get("x-ai-capped")


@pytest.mark.parametrize("fields", [{}, {"unit": "output_tokens"}, {"reserve": "expected"}], ids=str)
@pytest.mark.parametrize("model", ["gpt-5", "unheard-of"])
async def test_a_request_without_a_limit_leaves_as_it_is(world, model, fields):
    gateway = world(MODELS.replace("model: %s", f"model: {model}") + budget(**fields))
    stream, onward, held = await begin(gateway, {**QUESTION, "model": "m"})
    assert onward.body is None or set(json.loads(onward.body)) == set(QUESTION)
    assert held - (8192 if model == "gpt-5" else 0) in (4096, 4096 + INPUT), "with the thinking to expect"
    assert await told(stream) is None


async def test_the_thinking_that_is_asked_for_is_held_too(world):
    _, _, held = await begin(world(budget(unit="output_tokens")), QUESTION | {"reasoning_effort": "high"})
    assert held == 4096 + 16384


async def test_money_needs_no_cap_either(world):
    priced = "models: {m: {provider: a, price: {input: 0, output: 1000}}, n: {provider: b}}\n"
    gateway = world(priced + budget(unit="usd", limit=100))
    stream, onward, held = await begin(gateway)
    assert (onward.body, held) == (None, 4096 * 10**6)
    assert await told(stream) is None


async def test_what_is_usual_is_held_once_it_is_known(world):
    gateway = world(budget())
    for _ in range(20):
        await talk(gateway.stream(), asks(), sends(QUESTION), answers(), streams(ANSWER, end=True))
    before = (await gateway.level("t", 3600))[0]
    _, _, held = await begin(gateway)
    assert held == INPUT + 3
    assert before == 20 * 10


async def test_a_stream_without_a_limit_holds_more_as_it_grows_and_ends_where_there_is_no_room(world):
    gateway = world(budget(limit=8_000))
    stream, *_ = await begin(gateway, STREAMED)
    await answers(kind="text/event-stream")(stream)
    text = event({"choices": [{"index": 0, "delta": {"content": "word " * 1_000}}]})
    ends = []
    while not stream.done:
        ends.append((await streams(text)(stream)).end)
    assert 4 < len(ends) < 12
    assert gateway.log[0]["denied_by"] == "t"
    settled, reserved = await gateway.level("t", 3600)
    assert reserved == 0
    assert settled <= 8_000 + 2_000, "beyond the limit by what came with one event at most"


@pytest.mark.parametrize(
    ("model", "most"), [("gpt-5", 128_000), ("claude-opus-4-1", 32_000), ("gemini-2.5-pro", 65_536)]
)
async def test_where_the_worst_is_held_it_is_the_most_the_model_can_write(world, model, most):
    gateway = world(MODELS % model + budget(reserve="worst"))
    stream, onward, held = await begin(gateway)
    assert held == INPUT + most
    assert onward.body is None or "max_completion_tokens" not in json.loads(onward.body)
    assert await told(stream) is None


async def test_where_the_worst_is_not_known_it_is_the_context_and_else_a_cap_that_is_told(world):
    gateway = world("models: {m: {provider: a, context: 9000}, n: {provider: b}}\n" + budget(reserve="worst"))
    stream, onward, held = await begin(gateway)
    assert (onward.body, held) == (None, INPUT + 9000)
    gateway = world(budget(reserve="worst"))
    stream, onward, held = await begin(gateway)
    assert json.loads(onward.body)["max_completion_tokens"] == 4096
    assert held == INPUT + 4096
    assert await told(stream) == "4096"


CAPPED = "limits: {output_tokens: 700}\n"
OWN = "models: {m: {provider: a, max_output_tokens: 300}, n: {provider: b}}\n"


@pytest.mark.parametrize("reserve", ["worst", "expected", "null"])
@pytest.mark.parametrize(("text", "cap"), [(CAPPED, 700), (OWN, 300), (OWN + CAPPED, 300)])
async def test_a_cap_set_by_hand_is_written_and_told(world, text, cap, reserve):
    gateway = world(text + budget(reserve=reserve))
    stream, onward, held = await begin(gateway)
    assert json.loads(onward.body)["max_completion_tokens"] == cap
    assert held == INPUT + cap
    assert await told(stream) == str(cap)


async def test_a_limit_that_is_lowered_is_told_and_one_that_is_not_is_left_alone(world):
    gateway = world(OWN + budget())
    for asked, cap in ((5000, "300"), (300, None), (20, None)):
        stream, onward, _ = await begin(gateway, QUESTION | {"max_tokens": asked})
        assert (onward.body is None) is (cap is None)
        assert await told(stream) == cap


@pytest.mark.parametrize("text", ["", budget(unit="requests")])
async def test_without_a_budget_of_tokens_nothing_is_written(world, text):
    gateway = world(CAPPED + text)
    stream, onward, _ = await begin(gateway)
    assert onward.body is None
    assert await told(stream) is None


@pytest.mark.parametrize("capped", [False, True])
async def test_a_budget_for_one_call_compares_the_worst(world, capped):
    """Nothing can be held more of it later."""
    priced = "models: {m: {provider: a, context: 100000, price: {input: 0, output: 10}}, n: {provider: b}}\n"
    gateway = world((CAPPED if capped else "") + priced + budget(unit="usd", limit=0.5, window="call"))
    [_, reply] = await talk(gateway.stream(), asks(), sends(QUESTION))
    if capped:
        assert isinstance(reply, Continue)
    else:
        assert isinstance(reply, LocalReply)
        assert error(reply)[:2] == (402, "budget_exceeded")


@pytest.mark.parametrize(
    ("model", "most"),
    [
        ("gpt-5.4-mini", 128_000),
        ("gpt-5-chat-latest", 16_384),
        ("openai/o3-mini", 100_000),
        ("gpt-4o-2024-08-06", 16_384),
        ("chatgpt-4o-latest", 16_384),
        ("gpt-4.1-nano", 32_768),
        ("claude-3-haiku-20240307", 4_096),
        ("us.anthropic.claude-3-5-sonnet-20241022-v2:0", 8_192),
        ("claude-opus-4-20250514", 32_000),
        ("claude-opus-4-1-20250805", 32_000),
        ("claude-sonnet-4@20250514", 64_000),
        ("claude-haiku-4-5", 64_000),
        ("claude-opus-4-6", 128_000),
        ("claude-sonnet-5-5", 128_000),
        ("models/gemini-2.0-flash", 8_192),
        ("gemini-3-pro-preview", 65_536),
        ("llama-3.3-70b", None),
        ("my-gpt-5", None),
    ],
)
def test_the_most_that_models_can_write(model, most):
    assert known_output(model) == most

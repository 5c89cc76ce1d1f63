"""Options of a request that change its price: priced where there is a price, else taken out where money is counted."""

import json
from datetime import date

import pytest

from extproc.upstream.prices import Known, PriceBook, bound, known_model, price, with_options
from extproc.words.exchange import Kinds
from tests.talk import QUESTION, answers, asks, event, sends, streams

SSE = "text/event-stream"
KINDS = "providers: {a: {kind: %s, api_key: env:PATH}, b: {kind: mock}}\n"
USD = "budgets: [{name: usd, unit: usd, limit: 1000, window: month%s}]\n"
ASKED = QUESTION | {"max_tokens": 1000}
DAY = date(2023, 11, 14)  # of the clock of these tests
COUNTS = {"prompt_tokens": 1000, "completion_tokens": 500}


async def begin(gateway, body, path="/v1/chat/completions"):
    stream = gateway.stream()
    await asks(path)(stream)
    onward = await sends(body)(stream)
    sent = body if onward.body is None else json.loads(onward.body)
    return stream, sent, (await gateway.level("usd", -1))[1]


async def charge(gateway, stream, answer, kind="application/json"):
    told = await answers(kind=kind)(stream)
    await streams(answer, end=True)(stream)
    await stream.on_end()
    return told, (await gateway.level("usd", -1))[0]


TIERS = {
    "asked and applied": ("priority", "priority", 2),
    "asked, and not told": ("priority", None, 2),
    "asked, and not applied": ("priority", "default", 1),
    "applied, as the account has it": ("auto", "priority", 2),
    "applied unasked": (None, "priority", 2),
    "cheaper": ("flex", "flex", 0.5),
    "cheaper, and not told": ("flex", None, 1),
    "cheaper, and not applied": ("flex", "default", 1),
}
PRICED = """models: {m: {provider: a, price: {input: 1, output: 2}}, n: {provider: b}}
surcharges: {service_tier=priority: 2, service_tier=flex: 0.5, speed=fast: 6, inference_geo=us: 1.1}
"""


@pytest.mark.parametrize("name", TIERS)
@pytest.mark.parametrize("streamed", [False, True])
async def test_a_service_tier_is_held_and_charged_at_its_price(world, name, streamed):
    asked, told, factor = TIERS[name]
    gateway = world(KINDS % "openai" + PRICED + USD % "")
    body = ASKED | ({"stream": True} if streamed else {}) | ({} if asked is None else {"service_tier": asked})
    stream, sent, held = await begin(gateway, body)
    assert sent.get("service_tier") == asked
    assert held == (len(json.dumps(body)) + 2 * 1000) * 1000 * (2 if asked == "priority" else 1)
    answer = {"choices": [], "usage": COUNTS} | ({} if told is None else {"service_tier": told})
    data, kind = (event(answer) + b"data: [DONE]\n\n", SSE) if streamed else (answer, "application/json")
    _, charged = await charge(gateway, stream, data, kind)
    assert charged == 2_000_000 * factor


async def test_the_responses_api_has_tiers_too(world):
    gateway = world(KINDS % "openai" + PRICED + USD % "")
    body = {"model": "m", "input": "Hello", "max_output_tokens": 1000, "service_tier": "priority"}
    stream, _, held = await begin(gateway, body, "/v1/responses")
    assert held == (len(json.dumps(body)) + 2 * 1000) * 2000
    usage = {"input_tokens": 1000, "output_tokens": 500}
    answer = {"status": "completed", "output": [], "usage": usage, "service_tier": "default"}
    assert (await charge(gateway, stream, answer))[1] == 2_000_000


FAST = {
    "fast": ({"speed": "fast"}, {"speed": "fast"}, 6, 6),
    "fast, and not applied": ({"speed": "fast"}, {"speed": "standard"}, 6, 1),
    "in one country": ({"inference_geo": "us"}, {}, 1.1, 1.1),
    "both": ({"inference_geo": "us", "speed": "fast"}, {"speed": "fast", "inference_geo": "us"}, 6.6, 6.6),
    "anywhere": ({"inference_geo": "global", "service_tier": "standard_only"}, {"service_tier": "standard"}, 1, 1),
}


@pytest.mark.parametrize("name", FAST)
async def test_anthropics_options_are_held_and_charged_at_their_price(world, name):
    options, told, factor, charged = FAST[name]
    gateway = world(KINDS % "anthropic" + PRICED + USD % "")
    stream, sent, held = await begin(gateway, ASKED | options, "/v1/messages")
    assert {field: sent[field] for field in options} == options
    assert held == pytest.approx((len(json.dumps(ASKED | options)) + 2 * 1000) * 1000 * factor, abs=2)
    usage = {"input_tokens": 1000, "output_tokens": 500} | told
    answer = {"type": "message", "content": [], "usage": usage}
    assert (await charge(gateway, stream, answer))[1] == pytest.approx(2_000_000 * charged)


UNKNOWN = "models: {m: {provider: a, price: {input: 1, output: 2}}, n: {provider: b}}\n"


@pytest.mark.parametrize(
    ("kind", "path", "options"),
    [
        ("openai", "/v1/chat/completions", {"service_tier": "scale"}),
        ("openai", "/v1/chat/completions", {"service_tier": ["priority"]}),
        ("openai", "/v1/completions", {"service_tier": "priority"}),
        ("anthropic", "/v1/messages", {"speed": "fast", "inference_geo": "eu"}),
    ],
)
async def test_an_option_without_a_price_is_taken_out_where_money_is_counted(world, kind, path, options):
    gateway = world(KINDS % kind + UNKNOWN + USD % "")
    body = {"model": "m", "prompt": "Hello", "max_tokens": 9} if path == "/v1/completions" else ASKED
    stream, sent, _ = await begin(gateway, body | options, path)
    assert not options.keys() & sent.keys()
    assert sent == body
    told, _ = await charge(gateway, stream, {"choices": [], "usage": COUNTS})
    assert told.set_headers["x-ai-ignored"] == ",".join(options)


@pytest.mark.parametrize(
    "text", ["", USD % ", mode: shadow", (USD % "").replace("usd", "tokens").replace("1000", "100000")], ids=str
)
async def test_elsewhere_it_is_passed_on(world, text):
    gateway = world(KINDS % "openai" + UNKNOWN + text)
    body = ASKED | {"service_tier": "scale"}
    _, sent, _ = await begin(gateway, body)
    assert sent == body


async def test_an_operators_own_option_is_passed_on_and_priced(world):
    models = "{n: {provider: b}, x: {provider: a, price: {input: 1, output: 2}}}"
    chain = "virtual_models: {m: {targets: [{model: x, override: {service_tier: priority}}]}}\n"
    gateway = world(
        KINDS % "openai" + f"models: {models}\n{chain}surcharges: {{service_tier=priority: 2}}\n" + USD % ""
    )
    stream, sent, held = await begin(gateway, ASKED)
    assert sent["service_tier"] == "priority"
    assert held == (len(json.dumps(ASKED)) + 2 * 1000) * 2000
    assert (await charge(gateway, stream, {"choices": [], "usage": COUNTS}))[1] == 4_000_000


def test_the_catalogues_prices_of_options():
    today = date(2026, 11, 22)
    gpt = known_model("openai", "gpt-5", today).price
    assert with_options(gpt, {"service_tier": "priority"}).output == 2 * gpt.output
    assert with_options(gpt, {"service_tier": "flex"}).input * 2 == gpt.input
    claude = known_model("anthropic", "claude-opus-5-5", today).price
    assert with_options(claude, {"speed": "fast"}).output == 2 * claude.output
    assert bound(with_options(claude, {"speed": "fast"}), 1000, 1000) == 2 * bound(claude, 1000, 1000)


def test_factors_apply_to_every_rate():
    found = PriceBook((), DAY, {"a=b": 1.5}).find(
        "m", "p", "m", None, Known(price=price(2, 4, cached_input=1, per_request=3, kinds={"audio_input": 8}))
    )
    dear = with_options(found, {"a": "b"})
    assert (dear.input, dear.output, dear.cached_input) == (3 * 10**9, 6 * 10**9, 15 * 10**8)
    assert dear.per_request == found.per_request
    assert isinstance(dear.kinds, Kinds)
    assert dear.kinds.audio_input == 12 * 10**9


@pytest.mark.parametrize("text", ["service_tier: 2", "{a=b: 0}", "{a=b: 1000}", "{A=b: 2}", "{'a=b c': 2}"])
def test_surcharges_are_checked(settings, text):
    with pytest.raises(ValueError):
        settings(f"surcharges: {text}")

"""Conversations in which a provider bills more than the model's tokens: further models, and calls of its own tools."""

import json

import pytest

from extproc.words.actions import LocalReply
from tests.talk import answers, asks, event, sends, streams, talk

YAML = """
providers:
  openai: {kind: openai, api_key: env:PATH}
  claude: {kind: anthropic, api_key: env:PATH}
  google: {kind: gcp_gemini, api_key: env:PATH}
  grok: {kind: x_ai, api_key: env:PATH}
models:
  gpt: {provider: openai, model: gpt-4.1, price: {input: 1, output: 10, per_request: 0}}
  own: {provider: openai, model: gpt-4.1-mini, price: {input: 1, output: 10, search: 0.002, session: 0.5}}
  haiku: {provider: claude, model: claude-haiku-4-5, price: {input: 1, output: 10}}
  opus: {provider: claude, model: claude-opus-4-6, price: {input: 5, output: 100, cache_write_1h: 20}}
  flash: {provider: google, model: gemini-2.5-flash, price: {input: 1, output: 10}}
  grok: {provider: grok, model: grok-4, price: {input: 1, output: 10}}
prices: [{model: "gpt-image-*", input: 2, output: 20, image_output: 40}]
limits: {hosted_calls: 3}
budgets: [{name: usd, unit: usd, limit: 100, window: month}, {name: t, unit: tokens, limit: 1000000, window: month}]
"""
MILLION = 10**9
"""Nano-USD of a million tokens at 1 USD."""


def message(**usage):
    usage = {"input_tokens": 100, "output_tokens": 10} | usage
    text = [{"type": "text", "text": "Hi"}]
    return {"id": "m", "type": "message", "role": "assistant", "model": "claude-haiku-4-5", "content": text} | {
        "stop_reason": "end_turn",
        "usage": usage,
    }


def response(*output, **more):
    usage = {"input_tokens": 100, "output_tokens": 10, "total_tokens": 110}
    return {"id": "r", "object": "response", "status": "completed", "output": output, "usage": usage} | more


def grounded(model="gemini-2.5-flash", **grounding):
    usage = {"promptTokenCount": 100, "candidatesTokenCount": 10, "totalTokenCount": 110}
    content = {"parts": [{"text": "Hi"}], "role": "model"}
    found = {"content": content, "finishReason": "STOP", "groundingMetadata": grounding}
    return {"candidates": [found], "usageMetadata": usage, "modelVersion": model}


ASK = {
    "/v1/messages": {"max_tokens": 50, "messages": [{"role": "user", "content": "Hello"}]},
    "/v1/responses": {"max_output_tokens": 50, "input": "Hello", "store": False},
}
TOKENS = 100 * 1000 + 10 * 10_000
"""Nano-USD of the tokens of these answers."""
SEARCH = {"type": "web_search_call", "action": {"type": "search"}}
OPEN = {"type": "web_search_call", "action": {"type": "open_page"}}
RUN = {"type": "code_interpreter_call", "container_id": "c1"}
ADVICE = {"type": "advisor_message", "model": "claude-opus-4-6", "input_tokens": 1000, "output_tokens": 200}
KEPT = {"cache_creation_input_tokens": 500, "cache_creation": {"ephemeral_1h_input_tokens": 400}}
DECLINED = {"type": "message", "model": "claude-opus-4-6", "input_tokens": 40, "output_tokens": 2}
SERVED = {"type": "fallback_message", "model": "claude-haiku-4-5", "input_tokens": 100, "output_tokens": 10}
DRAWN = {"input_tokens": 50, "output_tokens": 1000, "output_tokens_details": {"image_tokens": 900, "text_tokens": 100}}
DRAWS = [{"type": "image_generation", "model": "gpt-image-1.5"}]
BOX = {"type": "code_interpreter", "container": {"type": "auto", "memory_limit": "4g"}}
SHELL_BOX = {"type": "shell", "environment": {"type": "container_auto", "memory_limit": "4g"}}
SHELL = {"type": "shell_call", "environment": {"type": "container_reference", "container_id": "c1"}}
XAI = {"server_side_tool_usage_details": {"web_search_calls": 2, "x_search_calls": 1, "code_interpreter_calls": 1}}
GROK = response(usage={"input_tokens": 100, "output_tokens": 10} | XAI)

BILLED = {
    "an advisor": ("haiku", message(iterations=[{"type": "message"}, ADVICE]), 1000 * 5000 + 200 * 100_000),
    "what an advisor keeps": (
        "haiku",
        message(iterations=[ADVICE | KEPT]),
        1100 * 5000 + 400 * 20_000 + 200 * 100_000,
    ),
    "a model that declined": ("haiku", message(iterations=[DECLINED, SERVED]), 40 * 5000 + 2 * 100_000),
    "compaction": ("haiku", message(iterations=[{"type": "compaction", "input_tokens": 7} | KEPT]), 507 * 1000),
    "an advisor that is not known": (
        "haiku",
        message(iterations=[ADVICE | {"model": "new"}]),
        1000 * 1000 + 200 * 10_000,
    ),
    "no iterations": ("haiku", message(iterations={"type": "advisor_message"}), 0),
    "searches of Claude": ("haiku", message(server_tool_use={"web_search_requests": 2, "web_fetch_requests": 9}), 2e7),
    "searches, but no pages that were opened": ("gpt", response(SEARCH, OPEN, SEARCH), 2e7),
    "searches as the provider counts them": (
        "gpt",
        response(SEARCH, SEARCH, tool_usage={"web_search": {"num_requests": 1}}),
        1e7,
    ),
    "searches of files": ("gpt", response({"type": "file_search_call"}), 2.5e6),
    "a container once": ("gpt", response(RUN, RUN), 3e7),
    "a container by its size": ("gpt", response(RUN, tools=[BOX]), 12e7),
    "a container that was there": ("gpt", response(RUN, tools=[BOX | {"container": "c1"}]), 0),
    "a container of a shell": ("gpt", response(SHELL, SHELL, tools=[SHELL_BOX]), 12e7),
    "a container of a shell that was there": (
        "gpt",
        response(SHELL, tools=[{"type": "shell", "environment": SHELL["environment"]}]),
        0,
    ),
    "a shell of the client": (
        "gpt",
        response(SHELL | {"environment": {"type": "local"}}, tools=[{"type": "shell"}]),
        0,
    ),
    "a search at a price of one's own": ("own", response(SEARCH, RUN), 2e6 + 5e8),
    "pictures": (
        "gpt",
        response(tools=DRAWS, tool_usage={"image_gen": DRAWN}),
        50 * 2000 + 900 * 40_000 + 100 * 20_000,
    ),
    "calls as xAI counts them": ("grok", GROK, 3 * 5e6 + 5e6),
    "an answer grounded in maps": ("flash", grounded(groundingChunks=[{"maps": {}}, {"maps": {}}]), 25e6),
    "a search for an answer": ("flash", grounded(webSearchQueries=["a", "b"]), 35e6),
}


TODAY = 1_795_500_000.0
"""2026-11-24, when the fees of this file have begun."""


def path_of(model):
    if model == "flash":
        return "/v1beta/models/flash:generateContent"
    return "/v1/messages" if model in ("haiku", "opus") else "/v1/responses"


def body_of(model, **fields):
    if model == "flash":
        return {"contents": [{"role": "user", "parts": [{"text": "Hello"}]}], **fields}
    return ASK[path_of(model)] | {"model": model} | fields


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("name", BILLED)
async def test_whatever_is_billed_beside_tokens_is_charged(world, clocks, name, streamed):
    model, answer, more = BILLED[name]
    gateway, path, body = world(YAML, clock=clocks(TODAY)), path_of(model), body_of(model)
    whole = answers(), streams(answer, end=True)
    if streamed and path != "/v1/messages":
        path = path.replace(":generate", ":streamGenerate") + "?alt=sse" * (model == "flash")
        body |= {"stream": True} if model != "flash" else {}
        items = [{"type": "response.output_item.done", "item": item} for item in answer.get("output", ())]
        events = [*items, {"type": "response.completed", "response": answer}] if model != "flash" else [answer]
        whole = answers(kind="text/event-stream"), streams(b"".join(map(event, events)), end=True)
    elif streamed:
        begun = {"type": "message_start", "message": answer | {"usage": {"input_tokens": 100, "output_tokens": 1}}}
        done = {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": answer["usage"]}
        events = begun, done, {"type": "message_stop"}
        body["stream"], whole = (
            True,
            (answers(kind="text/event-stream"), streams(b"".join(map(event, events)), end=True)),
        )
    await talk(gateway.stream(), asks(path), sends(body), *whole)
    assert await gateway.level("usd", -1) == (TOKENS + more, 0)
    [entry] = gateway.log
    assert entry["usage_source"] == "provider"


PICTURES = {"created": 1, "data": [{"url": "a"}, {"url": "b"}]}
PAGES = {"pages": [{"markdown": "Hi"}], "model": "mistral-ocr-latest", "usage_info": {"pages_processed": 3}}
DOCUMENT = {"type": "document_url", "document_url": "https://example.com/a.pdf"}
ANNOTATED = {"document_annotation_format": {"type": "json_schema"}}
PDF = {"type": "document_url", "document_url": "data:application/pdf;base64," + "A" * 2560}
CENT = 10_000_000
UNITS = {
    "images": ("images/generations", {"prompt": "x", "n": 2}, PICTURES, (8, 8)),
    "images of a size": ("images/generations", {"prompt": "x", "n": 2, "size": "1024x1792"}, PICTURES, (16, 16)),
    "images of a quality": ("images/generations", {"prompt": "x", "n": 2, "quality": "hd"}, PICTURES, (18, 18)),
    "images of both": (
        "images/generations",
        {"prompt": "x", "n": 2, "size": "1024x1792", "quality": "hd"},
        PICTURES,
        (24, 24),
    ),
    "images of a cheaper size": ("images/generations", {"prompt": "x", "n": 2, "size": "256x256"}, PICTURES, (8, 4)),
    "pages of any document": ("ocr", {"document": DOCUMENT}, PAGES, (400, 1.2)),
    "chosen pages": ("ocr", {"document": DOCUMENT, "pages": [1, 2, 5]}, PAGES, (1.2, 1.2)),
    "pages of a small file": ("ocr", {"document": PDF}, PAGES, (4.4, 1.2)),
    "annotated pages": ("ocr", {"document": DOCUMENT, "pages": [0, 1, 2], **ANNOTATED}, PAGES, (1.5, 1.5)),
    "pages without a count": ("ocr", {"document": DOCUMENT}, PAGES | {"usage_info": None}, (400, 0.4)),
    "a picture of a page": ("ocr", {"document": {"type": "image_url", "image_url": "https://a/b"}}, PAGES, (0.4, 1.2)),
}
OF_UNITS = """
providers: {openai: {kind: openai, api_key: env:PATH}, mistral: {kind: mistral_ai, api_key: env:PATH}}
models:
  mistral-ocr-latest: {provider: mistral}
  art:
    provider: openai
    price:
      {input: 0, output: 0, image: 0.04, image_sizes: {1024x1792: 0.08, hd: 0.09, hd/1024x1792: 0.12, 256x256: 0.02}}
budgets: [{name: usd, unit: usd, limit: 100, window: month}]
"""


@pytest.mark.parametrize("name", UNITS)
async def test_images_and_pages_are_held_and_charged_at_their_own_price(world, clocks, name):
    path, body, answer, (most, cents) = UNITS[name]
    gateway = world(OF_UNITS, clock=clocks(TODAY))
    stream = gateway.stream()
    await asks(f"/v1/{path}")(stream)
    await sends(body | {"model": "art" if path != "ocr" else "mistral-ocr-latest"})(stream)
    assert (await gateway.level("usd", -1))[1] == most * CENT
    await answers()(stream)
    await streams(answer, end=True)(stream)
    await stream.on_end()
    assert await gateway.level("usd", -1) == (cents * CENT, 0)


@pytest.mark.parametrize(("ticks", "source"), [(400_000_000, "provider"), (90_000_000_000, "disputed")])
async def test_the_cost_that_xai_tells_of_its_pictures_is_charged(world, clocks, ticks, source):
    gateway = world(
        """
providers: {x: {kind: x_ai, api_key: env:PATH}}
models: {grok-imagine-image: {provider: x}}
budgets: [{name: usd, unit: usd, limit: 100, window: month}]
""",
        clock=clocks(TODAY),
    )
    asked = asks("/v1/images/generations"), sends({"model": "grok-imagine-image", "prompt": "x", "n": 2})
    answer = PICTURES | {"usage": {"cost_in_usd_ticks": ticks}}
    await talk(gateway.stream(), *asked, answers(), streams(answer, end=True))
    [entry] = gateway.log
    assert (entry["cost_usd"], entry["usage_source"]) == (0.04, source)


async def test_a_search_of_an_answer_that_broke_off_is_charged(world):
    gateway = world(YAML)
    said = event({"type": "response.output_item.done", "item": SEARCH})
    asked = asks("/v1/responses"), sends(body_of("gpt", stream=True, tools=[{"type": "web_search"}]))
    await talk(gateway.stream(), *asked, answers(kind="text/event-stream"), streams(said))
    [entry] = gateway.log
    tokens = entry["input_tokens"] * 1000 + entry["output_tokens"] * 10_000
    assert await gateway.level("usd", -1) == (tokens + 10_000_000, 0)


async def held(world, clocks, model, **fields):
    """Nano-USD and tokens that a request holds."""
    gateway = world(YAML, clock=clocks(TODAY))
    stream = gateway.stream()
    await asks(path_of(model))(stream)
    reply = await sends(body_of(model, **fields))(stream)
    assert not isinstance(reply, LocalReply), reply.body
    found = (await gateway.level("usd", -1))[1], (await gateway.level("t", -1))[1]
    await stream.on_end()
    return found, len(json.dumps(body_of(model, **fields)))


ADVISOR = {"type": "advisor_20260301", "name": "advisor", "model": "claude-opus-4-6", "max_uses": 2, "max_tokens": 400}
WEB = {"type": "web_search_20250305", "name": "web_search"}
HELD = {
    "searches that the request limits": ("haiku", {"tools": [WEB | {"max_uses": 7}]}, 7 * 10_000_000),
    "searches without a limit": ("haiku", {"tools": [WEB]}, 3 * 10_000_000),
    "pages that cost nothing": ("haiku", {"tools": [WEB | {"type": "web_fetch_20250910"}]}, 0),
    "all calls of a response": (
        "gpt",
        {"tools": [{"type": "web_search_preview"}, {"type": "file_search"}], "max_tool_calls": 5},
        5 * 12_500_000,
    ),
    "a container": ("gpt", {"tools": [BOX]}, 4 * 30_000_000),
    "a container of a shell": ("gpt", {"tools": [SHELL_BOX]}, 4 * 30_000_000),
    "no container for a shell of the client": ("gpt", {"tools": [{"type": "shell"}]}, 0),
    "no leftovers of earlier searches": ("gpt", {"input": [SEARCH, {"role": "user", "content": "Go on"}]}, 0),
    "searches of Gemini": ("flash", {"tools": [{"googleSearch": {}}]}, 3 * 35_000_000),
    "maps": ("flash", {"tools": [{"google_maps": {}}]}, 3 * 25_000_000),
}


@pytest.mark.parametrize("name", HELD)
async def test_a_hold_has_room_for_the_calls_that_a_request_allows(world, clocks, name):
    model, fields, more = HELD[name]
    (with_it, _), size = await held(world, clocks, model, **fields)
    (without, _), other = await held(world, clocks, model)
    read = (with_it - without - more) // 1000 - (size - other)
    assert 32768 <= read <= 32768 + 1024  # the text that such tools find, and their definitions


NAMED = {
    "an advisor": ("haiku", {"tools": [ADVISOR]}, lambda size: 2 * ((size + 50) * 5000 + 400 * 100_000)),
    "a fallback": (
        "haiku",
        {"fallbacks": [{"model": "claude-opus-4-6", "max_tokens": 60}]},
        lambda size: (size + 50) * 5000 + 60 * 100_000,
    ),
    "a tool that draws": (
        "gpt",
        {"tools": DRAWS, "max_tool_calls": 1},
        lambda size: 3 * ((size + 50) * 2000 + 8192 * 40_000),
    ),
}


@pytest.mark.parametrize("name", NAMED)
async def test_a_hold_has_room_for_the_further_models_that_a_request_names(world, clocks, name):
    model, fields, more = NAMED[name]
    (with_it, tokens), size = await held(world, clocks, model, **fields)
    read = size + (1024 + 32768) * ("tools" in fields)
    assert with_it == read * 1000 + 50 * 10_000 + more(read)
    assert tokens > read + 50

"""Conversations in which a provider reports its usage late or in an unusual place: the usage is still charged."""

import json
from base64 import b64encode
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.dialects import client_apis
from extproc.exchange.translation.translate import Translation
from extproc.wire.framing.edges import Edges
from extproc.words.contract import Service
from extproc.words.dialect import Report
from extproc.words.exchange import Exchange
from tests.budgets.test_passed import MEASURED
from tests.budgets.texts import TEXTS
from tests.talk import QUESTION, STREAMED, TOKENS, USAGE, answers, asks, event, sends, streams, talk

SMALL = "limits: {buffered_response: 4KiB, sse_event: 4KiB}\n" + TOKENS
SSE = "text/event-stream"
PICTURE = b64encode(Random(1).randbytes(300_000)).decode()


def charged(gateway):
    [entry] = gateway.log
    return entry["input_tokens"], entry["output_tokens"], entry["usage_source"]


def pieces(body, size=60_000):
    """As Envoy hands over a body."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    found = [streams(data[start : start + size]) for start in range(0, len(data), size)]
    return [*found, streams(b"", end=True)]


# --- answers too long to be read whole

VECTORS = [{"object": "embedding", "index": index, "embedding": [0.0123, -0.456] * 700} for index in range(40)]
EMBEDDED = {"prompt_tokens": 900, "total_tokens": 900}
EMBED = {"model": "m", "input": ["text"] * 40}
LONG = {
    "usage at the end": {"object": "list", "data": VECTORS, "model": "m", "usage": EMBEDDED},
    "usage at the end, and more": {"data": VECTORS, "usage": EMBEDDED, "meta": {"x": [1, {"y": "}"}]}},
    "usage first": {"model": "m", "object": "list", "usage": EMBEDDED, "data": VECTORS},
    "usage in the middle": {"data": VECTORS, "usage": EMBEDDED, "object": "list", "other": VECTORS},
}


@pytest.mark.parametrize("name", LONG)
async def test_a_long_answer_is_charged_its_reported_usage(world, name):
    gateway = world(SMALL)
    said = asks("/v1/embeddings"), sends(EMBED), answers()
    replies = await talk(gateway.stream(), *said, *pieces(LONG[name]))
    assert b"".join(chunk.body for chunk in replies[3:]) == json.dumps(LONG[name]).encode()
    assert charged(gateway) == (900, 0, "provider")
    assert await gateway.level("t") == (900, 0)


LIE = {"usage": {"input_tokens": 1, "output_tokens": 1}, "usageMetadata": {"promptTokenCount": 1}}
CALL = {"functionCall": {"name": "f", "args": LIE | {"text": "word " * 20_000}}}
COUNTS = {"input_tokens": 900, "output_tokens": 30, "total_tokens": 930}
BEHIND = {"more": "word " * 20_000, "also": [LIE]}
MIDDLE = {
    "openai_responses": {
        "type": "response.completed",
        "response": {"output": [LIE, PICTURE], "status": "completed", "usage": COUNTS, **BEHIND},
    },
    "gemini_generate_content": {
        "candidates": [{"content": {"parts": [CALL]}, "finishReason": "STOP"}],
        "usageMetadata": {"promptTokenCount": 900, "candidatesTokenCount": 30, "totalTokenCount": 930},
        **BEHIND,
    },
}


@pytest.mark.parametrize("name", MIDDLE)
@pytest.mark.parametrize("size", [60_000, 4099])
async def test_usage_in_the_middle_of_a_long_event_is_charged(world, name, size):
    gateway = world(f"limits: {{sse_event: 4KiB}}\n{GOOGLE if name.startswith('gemini') else OPENAI}{TOKENS}")
    path = "/v1beta/models/m:streamGenerateContent?alt=sse" if name.startswith("gemini") else "/v1/responses"
    ask = {"contents": [{"parts": [{"text": "Hello"}]}]} if name.startswith("gemini") else DRAW
    body = event(MIDDLE[name])
    replies = await talk(gateway.stream(), asks(path), sends(ask), answers(kind=SSE), *pieces(body, size))
    assert b"".join(chunk.body for chunk in replies[3:]) == body
    assert charged(gateway) == (900, 30, "provider")


def test_the_last_answer_of_a_long_array_has_the_usage():
    """A stream of Gemini's that is no SSE."""
    counted = MIDDLE["gemini_generate_content"]
    for body in ([counted, counted], [counted, {"candidates": []}]):
        data, report = json.dumps(body).encode(), Report()
        edges = Edges(data, b'"usageMetadata"')
        client_apis()["gemini_generate_content"].observe_edges(edges.head, edges.tail, report, edges.usages)
        assert report.usage is not None
        assert (report.usage.input_tokens, report.usage.output_tokens) == (900, 30)


async def test_vectors_are_not_counted_as_output(world):
    gateway = world(SMALL)
    said = asks("/v1/embeddings"), sends(EMBED), answers()
    await talk(gateway.stream(), *said, *pieces({"data": VECTORS}))
    input_tokens, output_tokens, source = charged(gateway)
    assert (output_tokens, source) == (0, "estimated")
    assert 40 <= input_tokens <= len(json.dumps(EMBED))


async def test_a_models_text_is_not_read_as_usage(world):
    """In a string, and in the input of a tool."""
    lie = {"usage": {"prompt_tokens": 1, "completion_tokens": 1, "input_tokens": 1, "output_tokens": 1}}
    long = "word " * 20_000
    message = {"content": long + json.dumps(lie)}
    gateway = world(SMALL)
    body = {"choices": [{"index": 0, "message": message}], "usage": USAGE, "x": json.dumps(lie)}
    await talk(gateway.stream(), asks(), sends(QUESTION), answers(), *pieces(body))
    assert charged(gateway) == (7, 3, "provider")
    gateway = world(SMALL)
    call = {"type": "tool_use", "id": "t", "name": "f", "input": {"text": long, **lie}}
    for rest in ({"usage": {"input_tokens": 7, "output_tokens": 3}}, {}):
        gateway = world(SMALL + "\nproviders: {a: {kind: anthropic, api_key: env:PATH}, b: {kind: mock}}")
        ask = QUESTION | {"max_tokens": 30_000}
        said = asks("/v1/messages"), sends(ask), answers()
        await talk(gateway.stream(), *said, *pieces({"type": "message", "content": [call], **rest}))
        assert charged(gateway)[2] == ("provider" if rest else "estimated")
        assert charged(gateway)[1] == 3 if rest else charged(gateway)[1] > 10_000


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_long_answer_without_usage_is_charged_no_more_than_was_held(world, streamed):
    """A stream beyond its limit holds more: at each step of 16 KiB, as with the pieces that Envoy sends."""
    gateway = world(SMALL)
    text = {"choices": [{"index": 0, "delta" if streamed else "message": {"content": "word " * 20_000}}]}
    body = QUESTION | {"max_tokens": 100, "stream": streamed}
    said = answers(kind=SSE if streamed else "application/json")
    await talk(gateway.stream(), asks(), sends(body), said, *pieces(event(text) if streamed else text))
    _, output_tokens, source = charged(gateway)
    assert (output_tokens <= (5_000 if streamed else 100), source) == (True, "estimated")


@pytest.mark.parametrize(
    "name", ["openai_chat", "openai_responses", "openai_completions", "anthropic_messages", "gemini_generate_content"]
)
@given(
    head=st.binary(max_size=80),
    tail=st.binary(max_size=80),
    usage=st.sampled_from([b'"usage":', b'"usage":{', b'"usageMetadata":{', b""]),
)
def test_no_ends_of_an_answer_are_too_strange_to_read(name, head, tail, usage):
    report = Report()
    client_apis()[name].observe_edges(
        head + usage + tail, tail + usage + head, report, Edges(head + usage + tail).usages
    )
    assert report.usage is None or report.usage.total_tokens >= 0


# --- pictures


DRAWN = {"input_tokens": 50, "output_tokens": 4200}


def drawn(usage=DRAWN):
    item = {"type": "image_generation_call", "id": "ig_1", "status": "completed", "result": PICTURE}
    response = {"id": "r", "model": "m", "status": "completed", "output": [item], "usage": usage, "user": None}
    partial = {"type": "response.image_generation_call.partial_image", "partial_image_b64": PICTURE}
    done = {"type": "response.completed", "response": response}
    return b"".join(
        b"event: %b\n" % data["type"].encode() + event(data)
        for data in (partial, {"type": "response.output_item.done", "item": item}, done)
    )


@pytest.mark.parametrize("limit", ["4KiB", "4MiB"])
async def test_a_streamed_image_is_charged_its_reported_usage(world, limit):
    gateway = world(f"limits: {{sse_event: {limit}}}\n{OPENAI}{TOKENS}")
    said = asks("/v1/responses"), sends(DRAW), answers(kind=SSE)
    replies = await talk(gateway.stream(), *said, *pieces(drawn()))
    assert b"".join(chunk.body for chunk in replies[3:]) == drawn(), "it is not ended for its length either"
    assert charged(gateway) == (50, 4200, "provider")


@pytest.mark.parametrize("limit", ["4KiB", "4MiB"])
async def test_base64_is_never_counted_as_text(world, limit):
    gateway = world(f"limits: {{sse_event: {limit}}}\n{OPENAI}{TOKENS}")
    await talk(gateway.stream(), asks("/v1/responses"), sends(DRAW), answers(kind=SSE), *pieces(drawn(None)))
    _, output_tokens, source = charged(gateway)
    assert source == "estimated"
    assert output_tokens < 1_000


GOOGLE = "providers: {a: {kind: gcp_gemini, api_key: env:PATH}, b: {kind: mock}}\n"
OPENAI = "providers: {a: {kind: openai, api_key: env:PATH}, b: {kind: mock}}\n"
DRAW = {"model": "m", "input": "Draw a cat", "stream": True, "max_output_tokens": 5_000}


async def test_an_image_in_a_chat_is_not_counted_as_text(world):
    gateway = world(SMALL)
    url = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PICTURE}"}}
    delta = {"choices": [{"index": 0, "delta": {"images": [url]}}]}
    used = {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 1290}}
    body = event(delta) + event(used) + b"data: [DONE]\n\n"
    await talk(gateway.stream(), asks(), sends(STREAMED), answers(kind=SSE), *pieces(body))
    assert charged(gateway) == (7, 1290, "provider")


# --- clients that leave early

BUDGET = "budgets: [{name: t, unit: tokens, limit: 100000000, window: hour}]"
KINDS = [
    "Ethiopic",
    "random Chinese",
    "Chinese",
    "emoji",
    "random emoji",
    "indented by chance",
    "code",
    "JSON arguments",
]
KINDS += ["JSON", "German", "English", "base64", "mixed"]


def said(text, **more):
    return event({"choices": [{"index": 0, "delta": {"content": text}}], **more})


async def leave(gateway, body, *chunks, path="/v1/chat/completions"):
    """A client that is gone after `chunks`."""
    stream = gateway.stream()
    for say in (asks(path), sends(body), answers(kind=SSE), *map(streams, chunks)):
        await say(stream)
    await stream.on_end()
    return charged(gateway)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("events", [1, 40], ids=["at once", "in pieces"])
async def test_no_kind_of_text_is_cheaper_for_a_client_that_leaves(world, name, events):
    text = TEXTS[name]
    size = -(-len(text) // events)
    chunks = [said(text[start : start + size]) for start in range(0, len(text), size)]
    _, output_tokens, source = await leave(world(THINKER % "gpt-oss-120b" + BUDGET), STREAMED, *chunks)
    assert source == "estimated"
    assert MEASURED[name]["gpt-4o"] <= output_tokens <= MEASURED[name]["gpt-4o"] + 1


async def test_a_long_answer_is_judged_by_pieces_of_all_of_it(world):
    """A client that leaves a stream whose end has more tokens than its beginning."""
    chunks = [said(TEXTS["English"] * 20), *[said(TEXTS["random Ethiopic"]) for _ in range(20)]]
    _, output_tokens, _ = await leave(world(THINKER % "gpt-oss-120b" + BUDGET), STREAMED, *chunks)
    true = MEASURED["English"]["gpt-4o"] * 20 + MEASURED["random Ethiopic"]["gpt-4o"] * 20
    assert 0.85 * true <= output_tokens <= 1.25 * true


@pytest.mark.parametrize("complete", [False, True])
async def test_a_usage_that_came_before_the_text_is_not_the_last_word(world, complete):
    early = said("", usage={"prompt_tokens": 7, "completion_tokens": 1})
    text = said("word " * 500)
    gateway = world(BUDGET)
    if complete:
        await talk(gateway.stream(), asks(), sends(STREAMED), answers(kind=SSE), streams(early + text, end=True))
        input_tokens, output_tokens, source = charged(gateway)
    else:
        input_tokens, output_tokens, source = await leave(gateway, STREAMED, early, text)
    assert (input_tokens, source) == (7, "estimated")
    assert 500 <= output_tokens <= 800


async def test_a_usage_that_grows_with_the_text_is_believed(world):
    """As some servers report it with each piece: a client that leaves pays what was reported last."""
    pieces = [said("word ", usage={"prompt_tokens": 7, "completion_tokens": count}) for count in range(1, 30)]
    assert await leave(world(BUDGET), STREAMED, *pieces) == (7, 29, "provider")


THINKER = "models: {m: {provider: a, model: %s}, n: {provider: b}}\n"
THOUGHT = {"prompt_tokens": 7, "completion_tokens": 6_020, "completion_tokens_details": {"reasoning_tokens": 5_986}}


@pytest.mark.parametrize("model", ["o3", "gpt-5", "gpt-5-mini-2025-08-07", "google/gemini-2.5-pro", "grok-4"])
async def test_hidden_thinking_is_charged_to_a_client_that_leaves_after_the_text(world, model):
    _, output_tokens, source = await leave(world(THINKER % model + BUDGET), STREAMED, said("word " * 34))
    assert source == "estimated"
    assert 0.9 * 6_020 <= output_tokens <= 1.6 * 6_020 or output_tokens == 8192 + 34


@pytest.mark.parametrize(
    "model", ["gpt-4o", "gpt-4.1-mini", "gpt-5-chat-latest", "llama-3.3-70b", "gemini-2.5-flash-lite"]
)
async def test_a_model_that_does_not_think_is_charged_its_text(world, model):
    _, output_tokens, _ = await leave(world(THINKER % model + BUDGET), STREAMED, said("word " * 34))
    assert 34 <= output_tokens <= 38, "the tokens of its text"


async def test_what_a_model_usually_thinks_is_known_after_its_first_answer(world):
    gateway = world(THINKER % "unheard-of" + BUDGET)
    whole = said("word " * 34) + event({"choices": [], "usage": THOUGHT})
    await talk(gateway.stream(), asks(), sends(STREAMED), answers(kind=SSE), streams(whole, end=True))
    gateway.lines.clear()
    _, output_tokens, source = await leave(gateway, STREAMED, said("word " * 34))
    assert source == "estimated"
    assert 0.9 * 6_020 <= output_tokens <= 1.1 * 6_020


async def test_thinking_that_was_seen_is_not_charged_twice(world):
    thinking = event({"choices": [{"index": 0, "delta": {"reasoning_content": "word " * 100}}]})
    body = STREAMED | {"reasoning_effort": "high"}
    _, output_tokens, _ = await leave(world(THINKER % "deepseek-r1" + BUDGET), body, thinking, said("word " * 34))
    assert 134 <= output_tokens <= 160


async def test_no_guess_is_more_than_the_request_allows(world):
    body = STREAMED | {"max_tokens": 900}
    _, output_tokens, _ = await leave(world(THINKER % "o3" + BUDGET), body, said("word " * 34))
    assert output_tokens == 900


# --- what an Anthropic stream tells at its beginning

ANTHROPIC = "providers: {a: {kind: anthropic, api_key: env:PATH}, b: {kind: mock}}\n"
CACHED = {"input_tokens": 10, "cache_read_input_tokens": 4_000, "cache_creation_input_tokens": 0, "output_tokens": 1}
STARTED = b"event: message_start\n" + event(
    {"type": "message_start", "message": {"id": "m", "model": "c", "content": [], "usage": CACHED}}
)
WORDS = event({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "word " * 34}})
LONG_QUESTION = {"messages": [{"role": "user", "content": "word " * 40_000}], "model": "m", "stream": True}


@pytest.mark.parametrize("complete", [False, True], ids=["leaves", "cut"])
async def test_the_input_of_a_client_that_leaves_an_anthropic_stream_is_what_was_told(world, complete):
    gateway = world(ANTHROPIC + BUDGET)
    body = LONG_QUESTION | {"max_tokens": 900}
    if complete:
        said = asks("/v1/messages"), sends(body), answers(kind=SSE), streams(STARTED + WORDS, end=True)
        await talk(gateway.stream(), *said)
    else:
        await leave(gateway, body, STARTED, WORDS, path="/v1/messages")
    input_tokens, output_tokens, source = charged(gateway)
    assert (input_tokens, source) == (4_010, "estimated")
    assert 34 <= output_tokens <= 50
    assert gateway.log[0]["cached_tokens"] == 4_000


async def test_so_is_that_of_a_translated_one(world):
    """The try tells what it knows so far beside the client's events."""
    translation = Translation(
        client_apis()["openai_chat"], Service("anthropic", "anthropic_messages", "c", stream=True)
    )
    stream = translation.stream(SSE, event_limit=1 << 20, body_limit=1 << 20)
    out = stream.feed(STARTED, False) + stream.feed(WORDS, False)
    gateway = world(ANTHROPIC + BUDGET)
    said = answers(kind=SSE, **{"x-extproc-translated": "1"})
    talking = gateway.stream()
    for say in (asks(), sends(LONG_QUESTION | {"max_tokens": 900}), said, streams(out)):
        reply = await say(talking)
    assert b"x-extproc" not in reply.body
    await talking.on_end()
    input_tokens, output_tokens, source = charged(gateway)
    assert (input_tokens, source) == (4_010, "estimated")
    assert 34 <= output_tokens <= 50


# --- usage that cannot be true


IMPOSSIBLE = {
    "output": ({"prompt_tokens": 7, "completion_tokens": 10**9}, (7, 5)),
    "input": ({"prompt_tokens": 10**9, "completion_tokens": 3}, (len(json.dumps(QUESTION | {"max_tokens": 5})), 3)),
    "both": ({"prompt_tokens": 10**9, "completion_tokens": 10**9}, (len(json.dumps(QUESTION | {"max_tokens": 5})), 5)),
    "a little": ({"prompt_tokens": 7, "completion_tokens": 9}, (7, 5)),
}


@pytest.mark.parametrize("name", IMPOSSIBLE)
async def test_usage_that_request_and_answer_prove_impossible_is_disputed(world, name):
    usage, counts = IMPOSSIBLE[name]
    gateway = world(BUDGET)
    answer = {"choices": [{"index": 0, "message": {"content": "Hi"}}], "usage": usage}
    body = QUESTION | {"max_tokens": 5}
    await talk(gateway.stream(), asks(), sends(body), answers(), streams(answer, end=True))
    assert charged(gateway) == (*counts, "disputed")
    assert await gateway.level("t", 3600) == (sum(counts), 0)
    assert gateway.metric("extproc_usage_total", source="disputed") == 1
    assert gateway.metric("extproc_provider_usage_refused_total", provider="a") == 1


@pytest.mark.parametrize(
    ("usage", "message"),
    [
        ({"prompt_tokens": 700, "completion_tokens": 5}, "Hi"),  # a prompt of the provider's own
        ({"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 332}, "Hi"),  # thinking beside the output
        ({"prompt_tokens": 7, "completion_tokens": 5, "citation_tokens": 90_000, "reasoning_tokens": 300}, "Hi"),
    ],
)
async def test_usage_that_may_be_true_is_believed(world, usage, message):
    gateway = world(BUDGET)
    answer = {"choices": [{"index": 0, "message": {"content": message}}], "usage": usage}
    await talk(gateway.stream(), asks(), sends(QUESTION | {"max_tokens": 5}), answers(), streams(answer, end=True))
    assert charged(gateway)[2] == "provider"


async def test_what_a_search_of_the_provider_reads_is_believed(world):
    gateway = world(OPENAI + "models: {m: {provider: a, context: 400000}, n: {provider: b}}\n" + BUDGET)
    body = {"model": "m", "input": "News?", "max_output_tokens": 900, "tools": [{"type": "web_search"}]}
    usage = {"input_tokens": 250_000, "output_tokens": 600}
    answer = {"status": "completed", "output": [], "usage": usage}
    await talk(gateway.stream(), asks("/v1/responses"), sends(body), answers(), streams(answer, end=True))
    assert charged(gateway) == (250_000, 600, "provider")


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("told", [False, True])
@pytest.mark.parametrize("held", [False, True])
async def test_a_provider_that_ignores_the_limit_is_charged_what_was_held_at_most(world, streamed, told, held):
    """Without a budget nothing was held, and its use is what the bytes of the text show."""
    gateway = world(BUDGET if held else "")
    usage = {"usage": {"prompt_tokens": 7, "completion_tokens": 2_001}} if told else {}
    text = {"choices": [{"index": 0, "delta" if streamed else "message": {"content": "word " * 2_000}}], **usage}
    body = QUESTION | {"max_tokens": 100, "stream": streamed}
    kind = answers(kind=SSE if streamed else "application/json")
    await talk(gateway.stream(), asks(), sends(body), kind, streams(event(text) if streamed else text, end=True))
    _, output_tokens, source = charged(gateway)
    if held:
        assert (output_tokens, source) == (100, "disputed" if told else "estimated")
    else:
        assert (2_000 <= output_tokens <= 2_110, source) == (True, "provider" if told else "estimated")


# --- more input than the request, and images


SEARCHING = [
    "groq/compound",
    "compound-beta-mini",
    "gpt-4o-mini-search-preview",
    "gpt-5-search-api",
    "sonar-deep-research",
]
SEARCHING += ["o4-mini-deep-research", "perplexity/sonar-pro", "openai/gpt-4.1:online"]


def whole(told, message="Hi"):
    return {"choices": [{"index": 0, "message": {"content": message}}], "usage": told}


async def answered(gateway, told, body, message="Hi"):
    await talk(gateway.stream(), asks(), sends(QUESTION | body), answers(), streams(whole(told, message), end=True))
    return charged(gateway)


@pytest.mark.parametrize("model", SEARCHING)
async def test_what_a_searching_model_tells_is_believed(world, model):
    """Its input is what it found, and its output that of several steps, each within the limit."""
    told = {"prompt_tokens": 180_000, "completion_tokens": 5_000}
    assert await answered(world(THINKER % model + BUDGET), told, {"max_tokens": 900}) == (180_000, 5_000, "provider")


@pytest.mark.parametrize("model", ["groq/compound", "sonar"])
async def test_absurd_counts_of_a_searching_model_are_disputed(world, model):
    told = {"prompt_tokens": 10**9, "completion_tokens": 10**8}
    input_tokens, output_tokens, source = await answered(world(THINKER % model + BUDGET), told, {"max_tokens": 900})
    assert source == "disputed"
    assert (input_tokens <= 33_000, output_tokens) == (True, 900)


@pytest.mark.parametrize("model", ["llama-3.3-70b", "gpt-4o", "sonarqube-7b", "my-compound-interest"])
async def test_what_no_other_model_can_have_read_is_disputed(world, model):
    told = {"prompt_tokens": 180_000, "completion_tokens": 5}
    assert (await answered(world(THINKER % model + BUDGET), told, {"max_tokens": 900}))[2] == "disputed"


def picture(count):
    url = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PICTURE}"}}
    return [url] * count


@pytest.mark.parametrize("kind", ["seen", "told apart", "neither"])
@pytest.mark.parametrize("streamed", [False, True])
async def test_images_are_no_text_that_the_limit_bounds(world, kind, streamed):
    gateway = world(BUDGET)
    told = {"prompt_tokens": 7, "completion_tokens": 2 * 1_290}
    if kind == "told apart":
        told["completion_tokens_details"] = {"image_tokens": 2 * 1_290}
    message = {"content": "", "images": picture(2) if kind == "seen" else None}
    answer = {"choices": [{"index": 0, "delta" if streamed else "message": message}], "usage": told}
    body = event(answer) + b"data: [DONE]\n\n" if streamed else answer
    kind_of = answers(kind=SSE if streamed else "application/json")
    ask = QUESTION | {"max_tokens": 300, "stream": streamed}
    await talk(gateway.stream(), asks(), sends(ask), kind_of, *pieces(body, 1 << 20))
    assert charged(gateway) == ((7, 300, "disputed") if kind == "neither" else (7, 2_580, "provider"))


async def test_nor_are_those_of_gemini(world):
    gateway = world("providers: {a: {kind: gcp_gemini, api_key: env:PATH}, b: {kind: mock}}\n" + BUDGET)
    parts = [{"text": "Here: "}, {"inlineData": {"mimeType": "image/png", "data": PICTURE}}]
    usage = {"promptTokenCount": 7, "candidatesTokenCount": 1_290, "totalTokenCount": 1_297}
    answer = {"candidates": [{"content": {"parts": parts}, "finishReason": "STOP"}], "usageMetadata": usage}
    body = {"contents": [{"role": "user", "parts": [{"text": "Draw"}]}], "generationConfig": {"maxOutputTokens": 300}}
    said = asks("/v1beta/models/m:generateContent"), sends(body), answers()
    await talk(gateway.stream(), *said, *pieces(answer, 1 << 20))
    assert charged(gateway) == (7, 1_290, "provider")


@pytest.mark.parametrize("limit", ["4KiB", "4MiB"])
async def test_nor_are_those_of_the_responses_api(world, limit):
    gateway = world(f"limits: {{sse_event: {limit}}}\n{OPENAI}{BUDGET}")
    ask = DRAW | {"max_output_tokens": 500, "tools": [{"type": "image_generation"}]}
    await talk(gateway.stream(), asks("/v1/responses"), sends(ask), answers(kind=SSE), *pieces(drawn()))
    assert charged(gateway) == (50, 4200, "provider")


# --- thinking of Claude that was seen


def thinking(shown="", signature=""):
    """A block of thinking, closed where it has a signature."""
    start = {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": ""}}
    deltas = [{"type": "thinking_delta", "thinking": shown}] if shown else []
    deltas += [{"type": "signature_delta", "signature": signature}] if signature else []
    return b"".join(
        event(data) for data in (start, *[{"type": "content_block_delta", "index": 0, "delta": d} for d in deltas])
    )


def claude(model):
    return f"{ANTHROPIC}models: {{m: {{provider: a, model: {model}}}, n: {{provider: b}}}}\n{BUDGET}"


ADAPTIVE = {"max_tokens": 32_000, "thinking": {"type": "adaptive"}}


def signed(tokens):
    return b64encode(Random(4).randbytes(tokens * 3)).decode()


@pytest.mark.parametrize(("shown", "sealed"), [("word " * 100, 300), ("", 300), ("word " * 100, 1_200)])
async def test_thinking_that_was_seen_and_closed_is_charged_by_its_seal(world, shown, sealed):
    """A signature holds all of it, whatever part of it was shown: 8,192 to 16,384 tokens were charged before."""
    body = LONG_QUESTION | ADAPTIVE | {"output_config": {"effort": "high"}}
    said = STARTED, thinking(shown, signed(sealed)), WORDS
    _, output_tokens, source = await leave(world(claude("claude-opus-5")), body, *said, path="/v1/messages")
    assert source == "estimated"
    assert 0.9 * (sealed + 34) <= output_tokens <= 1.6 * (sealed + 34)


async def test_thinking_under_way_is_a_multiple_of_what_was_seen(world):
    body = LONG_QUESTION | ADAPTIVE
    said = STARTED, thinking("word " * 100)
    _, output_tokens, _ = await leave(world(claude("claude-opus-5")), body, *said, path="/v1/messages")
    assert 100 <= output_tokens <= 700


@pytest.mark.parametrize("text", [False, True])
async def test_thinking_of_which_nothing_is_shown_costs_what_the_time_allows(world, monkeypatch, text):
    """Its effort asks for 16,384 tokens. A client that leaves after four seconds can have caused 1,600 at most."""
    end = Exchange.end

    def end_after_four_seconds(exchange, **how):
        end(exchange, **how)
        exchange.seconds = 4.0

    monkeypatch.setattr(Exchange, "end", end_after_four_seconds)
    body = LONG_QUESTION | ADAPTIVE | {"output_config": {"effort": "high"}}
    said = (STARTED, WORDS, thinking()) if text else (STARTED, thinking())
    _, output_tokens, source = await leave(world(claude("claude-opus-5")), body, *said, path="/v1/messages")
    assert source == "estimated"
    assert 1_600 <= output_tokens <= 1_660


async def test_an_answer_of_claude_without_thinking_has_none(world):
    body = LONG_QUESTION | ADAPTIVE
    _, output_tokens, _ = await leave(world(claude("claude-opus-5")), body, STARTED, WORDS, path="/v1/messages")
    assert 34 <= output_tokens <= 60


@pytest.mark.parametrize("sealed", [0, 250])
async def test_the_multiple_is_that_of_whole_answers_with_the_same_effort(world, sealed):
    gateway = world(claude("claude-opus-5"))
    body = LONG_QUESTION | ADAPTIVE
    seen = thinking("word " * 100, signed(sealed) if sealed else "")
    told = {"output_tokens": 2_034, "output_tokens_details": {"thinking_tokens": 2_000}}
    end = event({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": told})
    whole = answers(kind=SSE), streams(STARTED + seen + WORDS + end, end=True)
    await talk(gateway.stream(), asks("/v1/messages"), sends(body), *whole)
    gateway.lines.clear()
    _, output_tokens, source = await leave(gateway, body, STARTED, seen, WORDS, path="/v1/messages")
    assert source == "estimated"
    assert 0.9 * 2_034 <= output_tokens <= 1.2 * 2_034


@pytest.mark.parametrize(("model", "hidden"), [("gpt-oss-120b", 0), ("deepseek-r1", 0), ("o3", 16_384)])
@pytest.mark.parametrize("kind", ["reasoning_text", "reasoning_summary_text"])
async def test_thinking_that_responses_show_is_all_of_it_where_the_model_hides_none(world, model, hidden, kind):
    """The summary of a model that hides its thinking does not tell its length."""
    types = (f"response.{kind}.delta", "response.output_text.delta")
    said = [event({"type": type, "output_index": 0, "delta": "word " * 100}) for type in types]
    body = {"model": "m", "input": "Hello", "stream": True, "reasoning": {"effort": "high"}}
    models = f"{OPENAI}models: {{m: {{provider: a, model: {model}}}, n: {{provider: b}}}}\n{BUDGET}"
    _, output_tokens, _ = await leave(world(models), body, *said, path="/v1/responses")
    assert hidden + 190 <= output_tokens <= hidden + 230


async def test_a_client_that_leaves_before_the_answer_does_not_pay_the_context_for_a_file(world):
    gateway = world("models: {m: {provider: a, context: 1000000}, n: {provider: b}}\n" + BUDGET)
    part = {"type": "video_url", "video_url": {"url": "https://x/y.webm"}}
    stream = gateway.stream()
    for say in (asks(), sends(STREAMED | {"messages": [{"role": "user", "content": [part]}], "max_tokens": 9})):
        await say(stream)
    await stream.on_end()
    input_tokens, output_tokens, source = charged(gateway)
    assert (output_tokens, source) == (9, "estimated")
    assert 32_768 <= input_tokens <= 32_900


@pytest.mark.parametrize("model", ["claude-next", "claude-opus-7-1", "gemini-9-pro", "unheard-of-thinker"])
async def test_models_that_are_not_known_are_not_taken_to_think(world, model):
    _, output_tokens, _ = await leave(world(THINKER % model + BUDGET), STREAMED, said("word " * 34))
    assert 34 <= output_tokens <= 55

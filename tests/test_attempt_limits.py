"""Both attachments in sequence: the request that leaves for a provider never asks for more than the budgets reserve."""

import contextlib
import itertools
import json
from functools import partial
from pathlib import Path

import pytest

from extproc.dialects import by_path, client_apis
from extproc.exchange.attempt import AttemptStream
from extproc.exchange.translation.translate import Translation
from extproc.settings.config import parse
from extproc.settings.limits import LimitsSettings
from extproc.words.actions import LocalReply
from extproc.words.contract import Service
from extproc.words.dialect import PLACE
from extproc.words.errors import Refusal
from tests.samples import exhaustive, some

YAML = """
providers:
  openai: {kind: openai, base_url: "https://a.test/v1"}
  anthropic: {kind: anthropic, base_url: "https://a.test/v1"}
  gemini: {kind: gcp_gemini, base_url: "https://a.test/v1beta"}
  vertex: {kind: gcp_vertex_ai, base_url: "https://a.test/v1", region: r, project: p}
  bedrock: {kind: aws_bedrock, region: r}
  cohere: {kind: cohere, base_url: "https://a.test/v2"}
  deepseek: {kind: deepseek, base_url: "https://a.test/v1"}
  openrouter: {kind: openrouter, base_url: "https://a.test/v1"}
models:
  gpt: {provider: openai, model: gpt-5}
  sonnet: {provider: anthropic, model: claude-sonnet-4-5}
  sonnet-marked: {provider: anthropic, model: claude-sonnet-4-5, prompt_cache: true}
  sonnet-capped: {provider: anthropic, model: claude-sonnet-4-5, max_output_tokens: 8192, prompt_cache: true}
  sonnet-small: {provider: anthropic, model: claude-sonnet-4-5, max_output_tokens: 200, prompt_cache: true}
  opus: {provider: anthropic, model: claude-opus-5, prompt_cache: true}
  pro: {provider: gemini, model: gemini-2.5-pro}
  pro-capped: {provider: gemini, model: gemini-2.5-pro, max_output_tokens: 8192}
  pro-small: {provider: gemini, model: gemini-2.5-pro, max_output_tokens: 100}
  flash: {provider: gemini, model: gemini-2.5-flash}
  three: {provider: gemini, model: gemini-3-pro}
  vertex-sonnet: {provider: vertex, model: claude-sonnet-4-6}
  nova: {provider: bedrock, model: "amazon.nova-pro-v1:0"}
  rock: {provider: bedrock, model: "anthropic.claude-sonnet-4-5-v1:0", prompt_cache: true}
  command: {provider: cohere, model: command-a-reasoning-08-2025}
  command-capped: {provider: cohere, model: command-a-reasoning-08-2025, max_output_tokens: 4000}
  deepseek: {provider: deepseek, model: deepseek-reasoner}
  router: {provider: openrouter, model: x/y}
virtual_models:
  told-to-think: {targets: [{model: pro, override: {reasoning_effort: xhigh}}]}
  thinks-by-default: {targets: [{model: command, default: {thinking: {type: enabled, budget_tokens: 70000}}}]}
  told-not-to-think: {targets: [{model: sonnet-marked, remove: [thinking, output_config, reasoning, reasoning_effort]}]}
  told-both: {targets: [{model: sonnet, override: {max_tokens: 30, thinking: {type: enabled, budget_tokens: 3000}}}]}
  several: {targets: [{model: gpt}, {model: pro}, {model: command, tries: 2}, {model: sonnet}], retry: {attempts: 5}}
budgets:
  - {name: tokens, unit: tokens, limit: 100000000000, window: total}
limits: {output_tokens: 500}
"""
SETTINGS = parse(f"{YAML}\nauth: {{required: false}}")
MODELS = [*SETTINGS.models, *SETTINGS.virtual_models]
HELLO = [{"role": "user", "content": "x"}]
LIMITS = (None, 1, 16, 100, 5000)
EFFORTS = (None, "none", "minimal", "low", "medium", "high", "xhigh", "max", "strange")
THINKING = (
    None,
    {"type": "enabled", "budget_tokens": 1},
    {"type": "enabled", "budget_tokens": 50_000},
    {"type": "adaptive"},
    {"type": "disabled"},
    {"type": "enabled"},
)


def chats():
    for limit, effort, thinking in itertools.product(LIMITS, EFFORTS, THINKING):
        yield {"messages": HELLO, "max_completion_tokens": limit, "reasoning_effort": effort, "thinking": thinking}
    for limit, reasoning in itertools.product(LIMITS, ({"max_tokens": 40_000}, {"effort": "high"}, {"max_tokens": 0})):
        yield {"messages": HELLO, "max_tokens": limit, "reasoning": reasoning}
    yield {"messages": HELLO, "max_tokens": 7, "n": 3, "reasoning_effort": "high"}


def messages():
    for limit, effort, thinking in itertools.product(LIMITS[1:], EFFORTS, THINKING):
        body = {"messages": HELLO, "max_tokens": limit, "thinking": thinking}
        yield body | ({"output_config": {"effort": effort}} if effort else {})
    # Fields left by a translation make the request be encoded again, also for Anthropic.
    left = [*HELLO, {"role": "assistant", "content": [{"type": "thinking", "thinking": "x", "signature": "gemini:AA"}]}]
    yield {"messages": [*left, *HELLO], "max_tokens": 1, "thinking": THINKING[2]}


def responses():
    for limit, effort in itertools.product(LIMITS, EFFORTS):
        yield {"input": "x", "max_output_tokens": limit, "reasoning": {"effort": effort} if effort else None}
    reasoning = {"type": "reasoning", "id": "r", "summary": [], "encrypted_content": "extproc:e30="}
    yield {"input": [*HELLO, reasoning, *HELLO], "max_output_tokens": 1, "reasoning": {"effort": "high"}}


def contents():
    given = [{"parts": [{"text": "x"}]}]
    thinking = (None, *({"thinkingBudget": tokens} for tokens in (-1, 0, 1, 50_000)))
    levels = ({"thinkingLevel": level.upper()} for level in EFFORTS[2:6])
    for limit, settings in itertools.product(LIMITS, (*thinking, *levels)):
        config = {"maxOutputTokens": limit, "thinkingConfig": settings}
        yield {"contents": given, "generationConfig": {name: value for name, value in config.items() if value}}
    yield {"contents": given, "generationConfig": {"maxOutputTokens": 7, "candidateCount": 3}}
    yield {"contents": given, "generation_config": {"max_output_tokens": 7}}


def others(dialect):
    """Requests of APIs without a list here: the full request of each dialect, with every limit."""
    file = Path(__file__).parent / "dialects" / "full_requests" / f"{dialect.name}.json"
    body = json.loads(file.read_bytes())["full"]["body"]
    for limit, name in itertools.product(LIMITS, dialect.fields.output_limits):
        yield body | {name: limit}


LISTS = {
    "/v1/chat/completions": chats,
    "/v1/messages": messages,
    "/v1/responses": responses,
    **dict.fromkeys(client_apis()["gemini_generate_content"].endpoints.paths, contents),
}
REQUESTS = {
    path: LISTS.get(path, partial(others, dialect))
    for path, dialect in by_path().items()
    if dialect.translation is not None and dialect.family == "chat"
}


def limit_of(body):
    nested = body.get("generationConfig") or body.get("inferenceConfig") or body
    names = ("max_tokens", "max_completion_tokens", "max_output_tokens", "maxOutputTokens", "maxTokens")
    return next((nested[name] for name in names if name in nested), None)


def choices_of(body):
    return body.get("n") or (body.get("generationConfig") or {}).get("candidateCount") or 1


async def leaving(world, path, body):
    """The reservation of the gateway attachment, and the output limit that each try sends. None: refused."""
    stream = world.stream()
    headers = {":method": "POST", ":path": path, "content-type": "application/json"}
    await stream.on_request_headers(headers, False)
    data = json.dumps(body).encode()
    onward = await stream.on_request_body(data)
    if isinstance(onward, LocalReply):
        return None
    exchange = stream._exchange
    sent = []
    for number in range(1, len(exchange.route.targets) + 1):
        attempt = AttemptStream(LimitsSettings())
        headers = onward.set_headers | {"x-envoy-attempt-count": str(number)}
        attends = headers.get("x-extproc-attend")
        out = onward.body or data
        if attends == "all" or (attends == "later" and number > 1):
            await attempt.on_request_headers({**headers, "x-extproc-back-off": "0"}, False)
            made = await attempt.on_request_body(out)
            if isinstance(made, LocalReply):
                continue
            out = made.body or out
        sent.append(json.loads(out))
    held = exchange.money.reservation.output_tokens
    await stream.on_end()
    return held, sent


@pytest.mark.parametrize("path", REQUESTS)
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("count", [40, pytest.param(1000, marks=exhaustive)])
async def test_the_reservation_covers_the_output_limit_that_is_sent(world, path, model, count):
    gateway = world(YAML)
    wrong, asked = [], 0
    for fields in some(list(REQUESTS[path]()), count):
        body = {name: value for name, value in fields.items() if value is not None}
        if PLACE not in path:
            body["model"] = model
        if (found := await leaving(gateway, path.replace(PLACE, model), body)) is None:
            continue
        held, sent = found
        for request in sent:
            asked += 1
            limit = limit_of(request)
            if limit is None or limit * choices_of(request) > held:
                wrong.append((held, limit, fields))
    assert wrong == []
    assert asked > 15 or path not in LISTS


@pytest.mark.parametrize(
    "fields", [{}, {"max_tokens": 0}, {"max_tokens": 40}, {"n": 3}, {"best_of": 4, "prompt": ["a", "b"]}]
)
async def test_the_reservation_covers_completions(world, fields):
    """Their default limit is 16, which some providers apply only when a request states it."""
    body = {"model": "gpt", "prompt": "a", **fields}
    held, [sent] = await leaving(world(YAML), "/v1/completions", body)
    choices = max(fields.get("n", 1), fields.get("best_of", 1)) * (2 if "best_of" in fields else 1)
    assert sent["max_tokens"] == fields.get("max_tokens", 16)
    assert held == max(1, sent["max_tokens"]) * choices


async def test_a_request_that_is_passed_through_reserves_only_its_limit(world):
    """The limit of the client's own API includes its thinking."""
    body = {"model": "sonnet", "messages": HELLO, "max_tokens": 5000, "thinking": THINKING[2]}
    held, [sent] = await leaving(world(YAML), "/v1/messages", body)
    assert (held, sent["max_tokens"]) == (5000, 5000)


# --- requests that were answered with a 500 in the past


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "properties": {"a": {}}, "required": [{}], "additionalProperties": False},
        {"type": "object", "properties": {"a": {}}, "required": [["a"]], "additionalProperties": False},
        {"type": "object", "properties": [], "required": {}},
        {"properties": {"a": None}, "required": None, "anyOf": {}, "$defs": []},
        {"type": ["object", {}], "items": [[]], "enum": {}},
        {"type": "object", "minimum": 10**300},
    ],
    ids=str,
)
async def test_any_schema_of_a_strict_tool_is_translated_or_refused(world, model, schema):
    gateway = world(YAML)
    tool = {"name": "f", "strict": True}
    chat = {"type": "function", "function": {**tool, "parameters": schema}}
    for path, fields in {
        "/v1/chat/completions": {"messages": HELLO, "tools": [chat]},
        "/v1/messages": {"messages": HELLO, "max_tokens": 9, "tools": [{**tool, "input_schema": schema}]},
        "/v1/responses": {"input": "x", "tools": [{"type": "function", **tool, "parameters": schema}]},
    }.items():
        assert await leaving(gateway, path, {"model": model, **fields}) is not None


@pytest.mark.parametrize("depth", [100, 900, 980, 990, 995, 999, 1_000, 5_000])
@pytest.mark.parametrize("model", ["gpt", "sonnet", "pro", "nova", "command"])
async def test_arguments_of_any_depth_are_translated(world, model, depth):
    """The arguments are JSON inside a text, which the limit of depth does not cover."""
    arguments = '{"a":' * depth + "1" + "}" * depth
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": arguments}}
    turns = [*HELLO, {"role": "assistant", "content": None, "tool_calls": [call]}]
    turns.append({"role": "tool", "tool_call_id": "c", "content": arguments})
    gateway = world(YAML)
    assert await leaving(gateway, "/v1/chat/completions", {"model": model, "messages": turns}) is not None
    items = [*HELLO, {"type": "function_call", "call_id": "c", "name": "f", "arguments": arguments}]
    items.append({"type": "function_call_output", "call_id": "c", "output": arguments})
    assert await leaving(gateway, "/v1/responses", {"model": model, "input": items}) is not None


def large(many):
    """Requests of each client API with so many parts, and turns that refer to one another."""
    calls = [{"type": "tool_use", "id": f"c{number}", "name": "f", "input": {}} for number in range(many)]
    results = [{"role": "user", "content": [{"type": "tool_result", "tool_use_id": call["id"]}]} for call in calls]
    asked = [
        {"role": "assistant", "content": None, "function_call": {"name": f"f{number}", "arguments": "{}"}}
        for number in range(many // 2)
    ]
    signed = {
        "role": "assistant",
        "content": [{"type": "text", "text": "x"}] * many,
        "thinking_blocks": [{"type": "thinking", "thinking": "", "signature": "gemini:aa"}] * many,
    }
    document = {"type": "document", "source": {"type": "text", "data": "x"}}
    answer = {"role": "assistant", "content": "y"}
    return {
        "turns": ("openai_chat", [*HELLO, answer] * (many // 2)),
        "answers": ("openai_chat", [*HELLO, *[answer] * many]),
        "functions": (
            "openai_chat",
            [*HELLO, *asked, *[{"role": "function", "name": "f0", "content": "x"}] * (many // 2)],
        ),
        "signatures": ("openai_chat", [*HELLO, signed]),
        "system messages": ("anthropic_messages", [*HELLO, *[{"role": "system", "content": "x"}] * many]),
        "results": ("anthropic_messages", [*HELLO, {"role": "assistant", "content": calls}, *results]),
        "documents": ("anthropic_messages", [{"role": "user", "content": [document] * many}]),
    }


@pytest.mark.parametrize("many", [4_000, pytest.param(20_000, marks=exhaustive)])
@pytest.mark.parametrize("name", large(1))
def test_the_time_of_a_translation_is_linear_in_the_request(name, many):
    """A fraction of a second. Quadratic time would take a thousand times as long."""
    client, turns = large(many)[name]
    body = {"model": "m", "max_tokens": 9, "messages": turns}
    for service in (
        Service("openai", "openai_responses", "gpt-5"),
        Service("anthropic", "anthropic_messages", "claude-sonnet-4-5", anew=True),
        Service("gcp_gemini", "gemini_generate_content", "gemini-3-pro"),
        Service("aws_bedrock", "aws_converse", "anthropic.claude-sonnet-4-5-v1:0"),
    ):
        with contextlib.suppress(Refusal):  # not every API accepts documents
            assert Translation(client_apis()[client], service).request(body)


def test_the_lists_cover_the_client_apis_that_are_translated():
    assert set(LISTS) <= set(REQUESTS)

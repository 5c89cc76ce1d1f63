"""Calls in answers of models that wait for a person, through two gateways that share a Redis."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anthropic
import httpx
import openai
import pytest

from tests.e2e.conftest import KEY, Gateway, eventually, run_gateway
from tests.e2e.test_questions import decide, questions
from tests.redis_server import RedisServer

YAML = """
providers: {sandbox: {kind: mock, base_url: "{mock_sandbox}"}}
models: {stub: {provider: sandbox}}
stores: {counters: "redis://127.0.0.1:PORT"}
consumers: [{name: demo, keys: [{env: EXTPROC_DEMO_KEY}]}]
limits: {keep_alive: 1s}
guardrails:
  - {name: payments, kind: tools, on: [tool_calls], action: ask, arguments: {pay: {/amount: {maximum: 100}}}}
  - {name: accounts, kind: tools, on: [tool_calls], action: ask, deny: [close], approval: {wait: 0s}}
"""
SCHEMA = {"type": "object", "properties": {"amount": {"type": "integer"}}}


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    RedisServer.need()
    server = RedisServer(tmp_path_factory.mktemp("redis"))
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def gateways(redis: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Gateway]]:
    yaml = YAML.replace("PORT", str(redis.port))
    folders = [tmp_path_factory.mktemp("held") for _ in range(2)]
    made = [run_gateway(folder, yaml, ("sandbox",), {}, strict=False) for folder in folders]
    yield [next(one) for one in made]
    for one in made:
        next(one, None)


def chat(gateway: Gateway, tool: str, amount: int, *, stream: bool) -> Any:
    text = f'call {tool} with {{"amount": {amount}}}'
    function = {"type": "function", "function": {"name": tool, "parameters": SCHEMA}}
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=KEY, max_retries=0) as client:
        given: Any = {"model": "stub", "messages": [{"role": "user", "content": text}], "tools": [function]}
        if not stream:
            [call] = client.chat.completions.create(**given).choices[0].message.tool_calls or []
            return json.loads(call.function.arguments)
        with client.chat.completions.stream(**given) as events:
            [call] = events.get_final_completion().choices[0].message.tool_calls or []
            return json.loads(call.function.arguments)


def responses(gateway: Gateway, tool: str, amount: int, *, stream: bool) -> Any:
    text = f'call {tool} with {{"amount": {amount}}}'
    function = {"type": "function", "name": tool, "parameters": SCHEMA, "strict": False}
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=KEY, max_retries=0) as client:
        given: Any = {"model": "stub", "input": text, "tools": [function]}
        if not stream:
            found = client.responses.create(**given).output
        else:
            with client.responses.stream(**given) as events:
                found = events.get_final_response().output
        return json.loads(next(each.arguments for each in found if each.type == "function_call"))


def messages(gateway: Gateway, tool: str, amount: int, *, stream: bool) -> Any:
    text = f'call {tool} with {{"amount": {amount}}}'
    with anthropic.Anthropic(base_url=gateway.url, api_key=KEY, max_retries=0) as client:
        given: Any = {"model": "stub", "messages": [{"role": "user", "content": text}], "max_tokens": 99}
        given["tools"] = [{"name": tool, "input_schema": SCHEMA}]
        if not stream:
            found = client.messages.create(**given).content
        else:
            with client.messages.stream(**given) as events:
                found = events.get_final_message().content
        return next(each.input for each in found if each.type == "tool_use")


def test_a_call_reaches_the_client_once_a_person_has_approved_it(gateways: list[Gateway]) -> None:
    here, there = gateways
    ways = [(ask, stream) for ask in (chat, responses, messages) for stream in (False, True)]
    with ThreadPoolExecutor(len(ways)) as pool:
        for decision in ("approve", "deny"):
            passed = [pool.submit(ask, here, "pay", 99, stream=stream) for ask, stream in ways]
            assert [each.result() for each in passed] == [{"amount": 99}] * len(ways), "they keep the rule"
            asked = [pool.submit(ask, here, "pay", 200 + at, stream=stream) for at, (ask, stream) in enumerate(ways)]
            assert eventually(lambda: len(questions(there)) == len(ways))
            assert not any(each.done() for each in asked)
            for question in questions(there):
                assert (question["call"]["tool"], question["call"]["server"]) == ("pay", "stub")
                assert question["consumer"] == "demo"
                assert decide(there, question["id"], decision, "not today").status_code == 200
            if decision == "approve":
                assert [each.result() for each in asked] == [{"amount": 200 + at} for at in range(len(ways))]
            else:
                errors = [each.exception() for each in asked]
                assert all(isinstance(error, openai.APIError | anthropic.APIError) for error in errors)
                assert all("not today" in str(error) for error in errors)


def test_an_answer_that_cannot_wait_says_how_to_ask_again(gateways: list[Gateway]) -> None:
    here, there = gateways
    for _ in range(2):
        with pytest.raises(openai.APIStatusError) as refused:
            chat(here, "close", 1, stream=False)
        assert (refused.value.status_code, refused.value.code) == (402, "approval_required")
        id = refused.value.response.headers["x-ai-approval"]
        assert decide(there, id, "approve").status_code == 200
        with pytest.raises(openai.APIStatusError):
            chat(here, "close", 2, stream=False)
        assert chat(there, "close", 1, stream=False) == {"amount": 1}, "an equal call, at another replica"
    for question in questions(here):
        decide(here, question["id"], "deny")


def test_a_waiting_stream_gets_comments_and_no_part_of_the_call(gateways: list[Gateway]) -> None:
    here, there = gateways
    body = {"model": "stub", "stream": True, "messages": [{"role": "user", "content": 'call pay with {"amount": 777}'}]}
    body["tools"] = [{"type": "function", "function": {"name": "pay", "parameters": SCHEMA}}]
    headers = {"authorization": f"Bearer {KEY}"}
    with httpx.stream("POST", f"{here.url}/v1/chat/completions", json=body, headers=headers, trust_env=False) as answer:
        got = ""
        for piece in answer.iter_text():
            got += piece
            if ": keep-alive" in got and (waiting := questions(there)):
                assert "pay" not in got
                decide(there, waiting[0]["id"], "approve")
    assert "pay" in got
    assert got.rstrip().endswith("[DONE]")
    assert here.last(lambda entry: entry["operation"] == "chat")["outcome"] == "ok"


def test_a_client_that_leaves_uses_no_approval(gateways: list[Gateway]) -> None:
    here, there = gateways
    with (
        pytest.raises(openai.APITimeoutError),
        openai.OpenAI(base_url=f"{here.url}/v1", api_key=KEY, max_retries=0, timeout=1) as client,
    ):
        function: Any = {"type": "function", "function": {"name": "pay", "parameters": SCHEMA}}
        text: Any = [{"role": "user", "content": 'call pay with {"amount": 888}'}]
        client.chat.completions.create(model="stub", messages=text, tools=[function])
    [question] = questions(there)
    assert decide(there, question["id"], "approve").status_code == 200
    assert chat(there, "pay", 888, stream=True) == {"amount": 888}


def test_no_call_passes_while_the_store_is_away(gateways: list[Gateway], redis: RedisServer) -> None:
    here, _ = gateways
    redis.stop()
    with pytest.raises(openai.APIStatusError) as refused:
        chat(here, "pay", 999, stream=False)
    assert (refused.value.status_code, refused.value.code) == (503, "store_unavailable")
    assert chat(here, "pay", 5, stream=False) == {"amount": 5}

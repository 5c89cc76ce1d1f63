"""Conversations in which the cache takes part: answers that are given again, and those that are not kept."""

import asyncio
import json

import pytest

from extproc.words.actions import Continue, LocalReply
from tests.talk import (
    ANSWER,
    CHOICE,
    DONE,
    QUESTION,
    STOP,
    STREAMED,
    TEXT,
    USED,
    answers,
    asks,
    error,
    event,
    sends,
    streams,
    talk,
)

RULES = "cache: {rules: [{ttl: 60s}]}"
PRICED = "models: {m: {provider: a, price: {input: 1, output: 1}}, n: {provider: b}}"
MESSAGES = {"model": "m", "max_tokens": 50, "messages": QUESTION["messages"]}
LIMITED = QUESTION | {"max_tokens": 50}


def paid(gateway, body=QUESTION, answer=ANSWER, path="/v1/chat/completions", **headers):
    """A request that a provider answers."""
    given = streams(answer, end=True)
    return talk(gateway.stream(), asks(path, **headers), sends(body), answers(), given)


def paid_stream(gateway, body=STREAMED, *pieces, **headers):
    pieces = pieces or (TEXT, STOP, USED, DONE)
    more = [streams(piece) for piece in pieces]
    kind = answers(kind="text/event-stream")
    return talk(gateway.stream(), asks(**headers), sends(body), kind, *more, streams(b"", end=True))


async def again(gateway, body=QUESTION, path="/v1/chat/completions", **headers):
    """The gateway's answer to a request: its own, or the order to ask a provider."""
    stream = gateway.stream()
    await asks(path, **headers)(stream)
    reply = await sends(body)(stream)
    await stream.on_end()
    return reply


async def gone(gateway, *says):
    """A streamed answer whose end never comes."""
    stream = gateway.stream()
    for say in (asks(), sends(STREAMED), *says):
        await say(stream)
    await stream.on_end()


def hit(reply):
    return isinstance(reply, LocalReply) and reply.headers.get("x-ai-cache") == "hit"


def content(reply):
    return json.loads(reply.body)


async def test_a_repeated_request_gets_the_kept_answer_as_its_provider_gave_it(world):
    gateway = world(f"{PRICED}\n{RULES}")
    _, _, head, _ = await paid(gateway)
    assert head.set_headers["x-ai-cache"] == "miss"
    gateway.clock.now += 7
    reply = await again(gateway, {"messages": QUESTION["messages"], "model": "m", "user": "somebody else"})
    assert (reply.status, content(reply)) == (200, ANSWER)
    told = {"x-ai-provider": "a", "x-ai-model": "m", "x-ai-attempts": "0", "x-ai-cache": "hit", "age": "7"}
    assert reply.headers == told | {"content-type": "application/json", "x-request-id": "r-1"}
    first, last = gateway.log
    assert (first["cache"], first["cost_usd"], "saved_usd" in first) == ("miss", 0.00001, False)
    assert (last["cache"], last["saved_usd"], last["status"], last["outcome"]) == ("hit", 0.00001, 200, "ok")
    assert gateway.metric("extproc_cache_total", outcome="hit") == 1
    spender = {"mode": "enforce", "consumer": "anonymous", "team": ""}
    assert gateway.metric("extproc_cache_saved_usd_total", **spender) == pytest.approx(0.00001)
    gateway.clock.now += 60
    assert isinstance(await again(gateway), Continue)


async def test_without_rules_no_stage_of_the_cache_is_built(world):
    gateway = world()
    lists = (gateway.pipeline.on_request, gateway.pipeline.on_response, gateway.pipeline.on_end)
    names = {type(stage).__name__ for stages in lists for stage, *_ in stages._stages}
    assert names.isdisjoint({"LookUp", "TellCache", "Fill"})
    assert not gateway.answers.caches
    assert world("cache: {conversations: {enabled: false}}").answers is None


async def test_a_streamed_answer_is_kept_at_its_end_and_serves_streams_and_plain_requests(world):
    gateway = world(RULES)
    await paid_stream(gateway)
    reply = await again(gateway, STREAMED)
    assert reply.headers["content-type"] == "text/event-stream"
    assert reply.body == TEXT + STOP + DONE  # the client did not ask for its usage
    shown = await again(gateway, STREAMED | {"stream_options": {"include_usage": True}})
    assert shown.body == TEXT + STOP + USED + DONE
    plain = content(await again(gateway))
    assert plain["choices"][0]["message"]["content"] == "Hi"
    assert plain["usage"]["total_tokens"] == 10


async def test_a_plain_answer_serves_clients_of_every_api(world):
    gateway = world(RULES)
    await paid(gateway, LIMITED)
    reply = await again(gateway, MESSAGES, "/v1/messages")
    assert content(reply)["content"] == [{"type": "text", "text": "Hi"}]
    assert content(reply)["usage"]["output_tokens"] == 3
    body = {"model": "m", "max_output_tokens": 50, "store": False, "input": QUESTION["messages"], "stream": True}
    reply = await again(gateway, body, "/v1/responses")
    assert b"response.completed" in reply.body
    assert hit(reply)


@pytest.mark.parametrize(
    "headers", [{"cache_control": "max-age=0, no-store"}, {"x_ai_cache": "off"}, {"x_ai_cache": " OFF "}]
)
async def test_a_client_keeps_its_request_out_of_the_cache(world, headers):
    gateway = world(RULES)
    _, _, head, _ = await paid(gateway, **headers)
    assert "x-ai-cache" not in head.set_headers
    assert not hit(await again(gateway))
    await paid(gateway)
    assert hit(await again(gateway))
    assert not hit(await again(gateway, **headers))
    assert "cache" not in gateway.log[0]


async def test_a_client_renews_an_answer(world):
    gateway = world(RULES)
    await paid(gateway)
    _, onward, head, _ = await paid(gateway, answer=ANSWER | {"model": "m-2"}, x_ai_cache="refresh")
    assert isinstance(onward, Continue)
    assert head.set_headers["x-ai-cache"] == "refresh"
    assert content(await again(gateway))["model"] == "m-2"


@pytest.mark.parametrize(
    ("asked", "fresh", "gone"),
    [
        ("ttl=10s", 9, 11),
        (" TTL=10s , exact", 9, 11),
        ("ttl=1h", 59, 61),  # the rule's is the most
        ("ttl=soon", 59, 61),  # no time
        ("ttl=0s", 59, 61),
        ("ttl=-1s", 59, 61),
    ],
)
async def test_a_call_may_say_how_long_its_answer_is_kept_at_most_as_long_as_the_rule_says(world, asked, fresh, gone):
    gateway = world(RULES)
    gateway.answers._store._now = gateway.clock
    await paid(gateway, x_ai_cache=asked)
    gateway.clock.now += fresh
    assert hit(await again(gateway))
    gateway.clock.now += gone - fresh
    assert not hit(await again(gateway))


async def test_a_call_may_say_how_old_an_answer_it_takes(world):
    gateway = world(RULES)
    await paid(gateway)
    gateway.clock.now += 20
    assert not hit(await again(gateway, x_ai_cache="ttl=10s"))
    assert hit(await again(gateway, x_ai_cache="ttl=30s"))


CUT = {"index": 0, "message": {"content": "Hi"}, "finish_reason": "length"}


@pytest.mark.parametrize(
    ("body", "answer", "kept"),
    [
        (QUESTION, ANSWER | {"choices": [CUT]}, False),  # cut by the provider's own limit
        (LIMITED, ANSWER | {"choices": [CUT]}, True),  # by the client's
        (QUESTION, ANSWER | {"choices": [CUT | {"finish_reason": "content_filter"}]}, False),
        (QUESTION, ANSWER | {"choices": [CUT | {"finish_reason": None}]}, False),
        (QUESTION, ANSWER | {"choices": []}, False),
        (QUESTION, {"error": {"message": "no"}}, False),
        (QUESTION, b"no JSON", False),
        (QUESTION, ANSWER | {"padding": "x" * 3000}, False),  # longer than max_answer
        (QUESTION | {"temperature": 0.1}, ANSWER, False),
        (QUESTION | {"temperature": 0.1, "seed": 1}, ANSWER, True),
        (QUESTION | {"temperature": 0}, ANSWER, True),
        (QUESTION | {"n": 2}, ANSWER, False),
        (QUESTION | {"tools": [{"type": "function", "function": {"name": "f"}}]}, ANSWER, False),
        (QUESTION | {"web_search_options": {}}, ANSWER, False),
        (QUESTION | {"logit_bias": {"5": 1}}, ANSWER, True),  # in the same form alone
    ],
)
async def test_an_answer_is_kept_where_its_model_alone_shaped_it(world, body, answer, kept):
    gateway = world("cache: {max_answer: 2KiB, rules: [{ttl: 60s}]}")
    await paid(gateway, body, answer)
    assert hit(await again(gateway, body)) is kept


async def test_operators_may_keep_answers_to_requests_that_ask_for_variety(world):
    gateway = world("cache: {rules: [{sampled: true}]}")
    await paid(gateway, QUESTION | {"temperature": 1})
    assert hit(await again(gateway, QUESTION | {"temperature": 1}))


@pytest.mark.parametrize("status", [400, 429, 500])
async def test_an_error_is_never_kept(world, status):
    gateway = world(RULES)
    await talk(gateway.stream(), asks(), sends(QUESTION), answers(status, end=True))
    assert not hit(await again(gateway))


async def test_a_stream_that_broke_off_is_not_kept(world):
    gateway = world(RULES)
    await paid_stream(gateway, STREAMED, TEXT)
    await gone(gateway, answers(kind="text/event-stream"), streams(TEXT), streams(STOP))
    await paid_stream(gateway, STREAMED, TEXT, event({"error": {"message": "no"}}), STOP, DONE)
    assert not hit(await again(gateway, STREAMED))


GUARD = "{name: g, kind: regex, patterns: {secret: Hi}, on: [output], action: %s}"


@pytest.mark.parametrize(("action", "kept"), [("block", False), ("mask", False), ("annotate", False), ("audit", True)])
async def test_an_answer_that_a_guardrail_touched_is_not_kept(world, action, kept):
    gateway = world(f"{RULES}\nguardrails: [{GUARD % action}]")
    await paid(gateway)
    assert hit(await again(gateway)) is kept


async def test_guardrails_read_kept_answers_and_their_rules_may_have_changed_since(world):
    before, after = world(RULES), world(f"{RULES}\nguardrails: [{GUARD % 'block'}]")
    await paid(before)
    [look_up] = [stage for stage, *_ in after.pipeline.on_request._stages if type(stage).__name__ == "LookUp"]
    look_up._answers = before.answers
    look_up._keys = next(
        stage for stage, *_ in before.pipeline.on_request._stages if type(stage).__name__ == "LookUp"
    )._keys
    assert error(await again(after))[:2] == (400, "guardrail_blocked")
    assert (after.log[0]["outcome"], after.log[0]["cache"]) == ("refused", "miss")


async def test_a_masked_request_has_no_part_in_the_cache(world):
    guard = "{name: g, kind: regex, patterns: {name: Hello}, action: mask}"
    gateway = world(f"{RULES}\nguardrails: [{guard}]")
    await paid(gateway)
    assert not hit(await again(gateway))
    assert "cache" not in gateway.log[0]


async def test_budgets_count_a_hit_as_a_request_without_tokens_and_cost(world):
    budgets = "{name: r, unit: requests, limit: 3, window: minute}"
    budgets += ", {name: t, unit: tokens, limit: 5000, window: minute}"
    budgets += ", {name: c, unit: concurrency, limit: 1}, {name: u, unit: usd, limit: 1, window: day}"
    gateway = world(f"{PRICED}\n{RULES}\nbudgets: [{budgets}]")
    await paid(gateway)
    spent = [await gateway.level("t"), await gateway.level("u", 86400)]
    for _ in range(2):
        reply = await again(gateway)
        assert hit(reply)
        assert "x-ratelimit-remaining-requests" in reply.headers
    assert [await gateway.level("t"), await gateway.level("u", 86400)] == spent == [(10, 0), (10_000, 0)]
    assert await gateway.level("r") == (3, 0)
    assert await gateway.level("c", 0) == (0, 0)
    assert error(await again(gateway))[:2] == (429, "rate_limited")
    assert await gateway.level("r") == (3, 0)
    assert [entry.get("cost_usd", 0) for entry in gateway.log] == [0.00001, 0, 0, 0]


async def test_a_spent_token_budget_does_not_refuse_a_kept_answer(world):
    gateway = world(f"{RULES}\nbudgets: [{{name: t, unit: tokens, limit: 4165, window: day}}]")
    await paid(gateway)
    other = QUESTION | {"messages": [{"role": "user", "content": "Other"}]}
    assert error(await again(gateway, other))[:2] == (402, "budget_exceeded")
    assert hit(await again(gateway))


async def test_an_answer_that_a_budget_capped_is_kept_only_when_it_ended_before(world):
    gateway = world(f"{RULES}\nbudgets: [{{name: t, unit: tokens, limit: 9000, window: day, reserve: worst}}]")
    await paid(gateway, LIMITED)
    assert hit(await again(gateway, LIMITED))


async def test_a_budget_without_room_that_downgrades_does_so_for_kept_answers_too(world):
    budget = "name: r, unit: requests, limit: 1, window: day, match: {model: m}, on_exceed: downgrade, downgrade_to: n"
    gateway = world(f"{RULES}\nbudgets: [{{{budget}}}]")
    await paid(gateway)
    reply = await again(gateway)
    assert reply.order == ("try-b",)
    assert await gateway.level("r", 86400) == (1, 0)


async def test_an_answer_of_a_cheaper_model_is_not_kept_for_the_dear_one(world):
    budget = "name: b, unit: tokens, limit: 1, window: day, match: {model: m}, on_exceed: downgrade, downgrade_to: n"
    gateway = world(f"{RULES}\nbudgets: [{{{budget}}}]")
    await paid(gateway)
    assert gateway.log[0]["downgraded"] == "b"
    assert not hit(await again(gateway))


async def test_answers_under_way_take_no_more_than_the_memory_of_the_cache(world):
    gateway = world("cache: {memory: 1MiB, max_answer: 600KiB, rules: [{}]}")
    bodies = [STREAMED | {"seed": number} for number in range(3)]
    under_way = [(await ask(gateway, body))[0] for body in bodies]
    for stream in under_way:
        await answers(kind="text/event-stream")(stream)
        await streams(piece("x" * (500 << 10)))(stream)
    assert gateway.answers.collected == 1000 << 10 | 2 * len(piece(""))
    for stream in under_way:
        for part in (TEXT, STOP):
            await streams(part)(stream)
        await streams(DONE, end=True)(stream)
        await stream.on_end()
    assert gateway.answers.collected == 0
    assert [hit(await again(gateway, body)) for body in bodies] == [True, True, False]


async def test_an_answer_in_another_form_than_was_asked_for_is_not_kept(world):
    gateway = world(RULES)
    await paid(gateway, STREAMED)
    await paid_stream(gateway, QUESTION)
    assert not hit(await again(gateway, STREAMED))
    assert not hit(await again(gateway))


async def test_shadow_mode_changes_no_answer_and_counts_what_it_would_save(world):
    gateway = world(f"{PRICED}\ncache: {{rules: [{{mode: shadow}}]}}")
    for _ in range(2):
        _, onward, head, _ = await paid(gateway)
        assert isinstance(onward, Continue)
        assert "x-ai-cache" not in head.set_headers
    assert [entry["cache"] for entry in gateway.log] == ["miss", "shadow"]
    assert gateway.log[1]["saved_usd"] == 0.00001
    assert gateway.metric("extproc_cache_saved_usd_total", mode="shadow", consumer="anonymous", team="") > 0
    [(value, *_)] = gateway.answers._store._entries.values()
    assert b"Hi" not in value
    assert len(value) < 100  # no body is kept


async def test_the_first_rule_that_matches_applies(world):
    rules = "[{match: {label.app: evals}}, {match: {model: m}, mode: off}, {}]"
    gateway = world(f"cache: {{rules: {rules}}}")
    for body, headers, kept in (
        (QUESTION, {}, False),
        (QUESTION, {"x_ai_app": "evals"}, True),
        (QUESTION | {"model": "n"}, {}, True),
    ):
        await paid(gateway, body, **headers)
        assert hit(await again(gateway, body, **headers)) is kept


EMBED = "/v1/embeddings"


def vectors(*texts, usage=True):
    """The answer of a provider: a vector for each text, which tells its length, and a token for each character."""
    items = [{"object": "embedding", "index": at, "embedding": [len(text), 0.5]} for at, text in enumerate(texts)]
    tokens = sum(map(len, texts))
    return {"object": "list", "data": items, "model": "m"} | (
        {"usage": {"prompt_tokens": tokens, "total_tokens": tokens}} if usage else {}
    )


def embedding(*texts, **more):
    return {"model": "m", "input": list(texts)} | more


async def asked_of_the_provider(gateway, body, answer):
    """The inputs that the provider of a batch gets, and the client's answer."""
    stream = gateway.stream()
    await asks(EMBED)(stream)
    onward = await sends(body)(stream)
    head = await answers()(stream)
    chunk = await streams(answer, end=True)(stream)
    await stream.on_end()
    given = json.loads(onward.body)["input"] if onward.body else body["input"]
    return given, head.set_headers.get("x-ai-cache"), json.loads(chunk.body)


async def test_embeddings_are_kept_by_input_and_a_provider_is_asked_for_the_rest(world):
    gateway = world(f"{PRICED}\n{RULES}")
    await paid(gateway, embedding("aa", "bbbb"), vectors("aa", "bbbb"), EMBED)
    reply = await again(gateway, embedding("bbbb"), EMBED)
    assert hit(reply)
    assert content(reply) == vectors("bbbb")
    assert content(await again(gateway, {"model": "m", "input": "aa"}, EMBED)) == vectors("aa")
    assert content(await again(gateway, embedding("bbbb", "aa", "bbbb"), EMBED)) == vectors("bbbb", "aa", "bbbb")
    backwards = vectors("c", "ddd") | {"data": vectors("c", "ddd")["data"][::-1]}
    given, told, answer = await asked_of_the_provider(gateway, embedding("c", "aa", "ddd"), backwards)
    assert (given, told, answer) == (["c", "ddd"], "partial", vectors("c", "aa", "ddd"))
    assert content(await again(gateway, embedding("ddd", "c"), EMBED)) == vectors("ddd", "c")
    entries = [(entry["cache"], entry["input_tokens"], entry.get("saved_usd")) for entry in gateway.log[-2:-1]]
    assert entries == [("partial", 4, pytest.approx(0.000002))]
    assert (gateway.log[-1]["cache"], gateway.log[-1]["saved_usd"]) == ("hit", pytest.approx(0.000004))
    for other in (embedding("aa", dimensions=5), embedding("aa", encoding_format="base64"), embedding([1, 2])):
        assert not hit(await again(gateway, other, EMBED)), other
    assert not hit(await again(gateway, embedding("aa"), EMBED, x_ai_cache="off"))
    assert not hit(await again(gateway, embedding("aa"), EMBED, x_ai_cache="refresh"))


async def test_an_answer_without_a_vector_for_each_input_is_no_answer_to_a_batch(world):
    gateway = world(RULES)
    await paid(gateway, embedding("aa"), vectors("aa", usage=False), EMBED)
    assert content(await again(gateway, embedding("aa"), EMBED)) == vectors("aa", usage=False)
    for bad in (vectors("b"), vectors("b", "c", "d"), {"data": 5}, {"data": [{"index": "x"}]}, b"no JSON"):
        stream = gateway.stream()
        await asks(EMBED)(stream)
        await sends(embedding("aa", "b", "c"))(stream)
        await answers()(stream)
        chunk = await streams(bad, end=True)(stream)
        await stream.on_end()
        assert b'"provider_bad_answer"' in chunk.body
        assert b"embedding" not in chunk.body
        assert (gateway.log[-1]["error"], gateway.log[-1]["complete"]) == ("provider_bad_answer", False)
    await talk(gateway.stream(), asks(EMBED), sends(embedding("aa", "b")), answers(500, end=True))
    assert not hit(await again(gateway, embedding("b"), EMBED))


async def test_batches_in_shadow_mode_and_long_ones_ask_for_every_input(world):
    gateway = world(f"{PRICED}\ncache: {{rules: [{{mode: shadow}}]}}")
    await paid(gateway, embedding("aa", "b"), vectors("aa", "b"), EMBED)
    given, told, answer = await asked_of_the_provider(gateway, embedding("aa", "c"), vectors("aa", "c"))
    assert (given, told, answer) == (["aa", "c"], None, vectors("aa", "c"))
    await paid(gateway, embedding("c", "b"), vectors("c", "b"), EMBED)
    assert [entry["cache"] for entry in gateway.log] == ["miss", "miss", "shadow"]
    texts = ["x" * number for number in range(1, 258)]
    gateway = world(RULES)
    await paid(gateway, embedding(*texts), vectors(*texts), EMBED)
    assert content(await again(gateway, embedding(*texts), EMBED)) == vectors(*texts)
    assert not hit(await again(gateway, embedding("x"), EMBED))


async def test_equal_batches_at_once_are_asked_once(world):
    gateway = world(RULES)
    stream = gateway.stream()
    await asks(EMBED)(stream)
    await sends(embedding("aa", "b"))(stream)
    others = [asyncio.create_task(again(gateway, embedding("aa", "b"), EMBED)) for _ in range(20)]
    await waiting_for(gateway, 20, others)
    await finish(stream, vectors("aa", "b"))
    assert all(hit(reply) for reply in await asyncio.gather(*others))


async def test_older_completions_are_kept_in_their_own_form(world):
    providers = "providers: {a: {kind: openai, base_url: 'http://127.0.0.1:8090/v1'}, b: {kind: mock}}"
    gateway = world(f"{providers}\n{RULES}")
    body = {"model": "m", "prompt": "Hello"}
    answer = {"model": "m", "choices": [{"index": 0, "text": "Hi", "finish_reason": "stop"}]}
    await paid(gateway, body, answer, "/v1/completions")
    assert content(await again(gateway, body, "/v1/completions")) == answer
    assert not hit(await again(gateway, body | {"stream": True}, "/v1/completions"))


# --- one flight


async def ask(gateway, body=QUESTION):
    stream = gateway.stream()
    await asks()(stream)
    return stream, await sends(body)(stream)


async def waiting_for(gateway, count, tasks):
    """Return once so many requests wait."""
    while gateway.answers.flights.waiting < count:
        assert not any(task.done() for task in tasks), "it waits for no other"
        await asyncio.sleep(0)


async def finish(stream, answer=ANSWER):
    await answers()(stream)
    await streams(answer, end=True)(stream)
    await stream.on_end()


async def test_of_500_equal_requests_one_goes_to_a_provider(world):
    gateway = world("cache: {wait: 8s, rules: [{}]}")
    first, onward = await ask(gateway)
    assert isinstance(onward, Continue)
    others = [asyncio.create_task(ask(gateway, STREAMED if number % 2 else QUESTION)) for number in range(499)]
    await waiting_for(gateway, 499, others)
    await finish(first)
    replies = await asyncio.gather(*others)
    assert all(hit(reply) for _, reply in replies)
    for stream, _ in replies:
        await stream.on_end()
    assert gateway.telemetry.in_flight == 0
    assert (gateway.answers.flights.waiting, len(gateway.answers.flights)) == (0, 0)


async def test_a_request_between_the_answer_and_its_place_in_the_store_is_no_second_flight(world):
    gateway = world(RULES)
    first, _ = await ask(gateway)
    put, go_on = gateway.answers._store.put, asyncio.Event()

    async def slow(*given):
        await go_on.wait()
        await put(*given)

    gateway.answers._store.put = slow
    ending = asyncio.create_task(finish(first))
    while gateway.answers.flights._flights and not next(iter(gateway.answers.flights._flights.values()))._landed:
        await asyncio.sleep(0)
    between, reply = await ask(gateway)
    assert hit(reply)
    await between.on_end()
    go_on.set()
    await ending
    assert hit(await again(gateway))
    assert len(gateway.answers.flights) == 0


@pytest.mark.parametrize("end", ["error", "left"])
async def test_where_the_first_fails_the_others_go_on_by_themselves(world, end):
    gateway = world(RULES)
    first, _ = await ask(gateway)
    others = [asyncio.create_task(ask(gateway)) for _ in range(5)]
    await waiting_for(gateway, 5, others)
    if end == "error":
        await answers(500, end=True)(first)
    await first.on_end()
    replies = await asyncio.gather(*others)
    assert all(isinstance(reply, Continue) for _, reply in replies)
    await finish(replies[0][0])
    for stream, _ in replies[1:]:
        await stream.on_end()
    assert hit(await again(gateway))


async def test_waits_are_bounded_in_time_and_in_number(world):
    gateway = world("cache: {wait: 300ms, waiting: 1, rules: [{}]}")
    first, _ = await ask(gateway)
    waiting = asyncio.create_task(ask(gateway))
    await waiting_for(gateway, 1, [waiting])
    one_more, reply = await ask(gateway)  # finds no room
    assert isinstance(reply, Continue)
    late, reply = await waiting
    assert isinstance(reply, Continue)
    for stream in (first, one_more, late):
        await stream.on_end()
    assert len(gateway.answers.flights) == 0


async def test_a_client_that_leaves_while_it_waits_takes_no_room(world):
    gateway = world(RULES)
    first, _ = await ask(gateway)
    waiting = asyncio.create_task(ask(gateway))
    await waiting_for(gateway, 1, [waiting])
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert gateway.answers.flights.waiting == 0
    await finish(first)
    assert hit(await again(gateway))


async def test_in_shadow_mode_no_request_waits(world):
    gateway = world("cache: {rules: [{mode: shadow}]}")
    first, _ = await ask(gateway)
    second, reply = await ask(gateway)
    assert isinstance(reply, Continue)
    for stream in (first, second):
        await stream.on_end()


async def test_geminis_clients_are_served_in_their_own_form(world):
    providers = "providers: {a: {kind: openai, base_url: 'http://127.0.0.1:8090/v1'}, b: {kind: mock}}"
    gateway = world(f"{providers}\n{RULES}")
    path, streamed = "/v1beta/models/m:generateContent", "/v1beta/models/m:streamGenerateContent"
    body = {"contents": [{"role": "user", "parts": [{"text": "Hello"}]}]}
    said = {"candidates": [{"content": {"parts": [{"text": "Hi"}]}, "finishReason": "STOP"}]}
    await paid(gateway, body, said, path, x_extproc_translated="1")
    assert content(await again(gateway, body, path)) == said
    assert not hit(await again(gateway, body, streamed + "?alt=sse"))
    assert "cache" in gateway.log[-1]
    assert not hit(await again(gateway, body, streamed))  # one JSON array
    assert "cache" not in gateway.log[-1]


# --- answers that are no whole answers


THOUGHT = {"index": 0, "message": {"content": "", "reasoning_content": "Hm"}, "finish_reason": "stop"}
SECOND = {"index": 1, "message": {"content": "Ho"}, "finish_reason": "stop"}
CALLED = {"tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}]}


@pytest.mark.parametrize(
    ("choices", "asked", "kept"),
    [
        ([CHOICE | {"message": {"content": ""}}], {}, False),
        ([CHOICE | {"message": {"content": " \n"}}], {}, False),
        ([CHOICE | {"message": {"content": None}}], {}, False),
        ([CHOICE | {"message": {}}], {}, False),
        ([THOUGHT], {}, False),
        ([CHOICE | {"message": {"content": None, "refusal": "No."}}], {}, True),
        ([CHOICE | {"message": CALLED, "finish_reason": "tool_calls"}], {}, True),
        ([CHOICE, SECOND], {"n": 2}, True),
        ([CHOICE], {"n": 2}, False),
        ([CHOICE, SECOND | {"finish_reason": None}], {"n": 2}, False),
        ([CHOICE, SECOND | {"finish_reason": None}], {}, False),
        ([CHOICE, SECOND | {"message": {"content": ""}}], {"n": 2}, False),
    ],
)
async def test_an_answer_is_kept_where_every_choice_has_content_and_an_end(world, choices, asked, kept):
    gateway = world("cache: {rules: [{ttl: 60s, sampled: true}]}")
    await paid(gateway, QUESTION | asked, ANSWER | {"choices": choices})
    assert hit(await again(gateway, QUESTION | asked)) is kept


def message(content, stop):
    return {"id": "m", "type": "message", "role": "assistant", "model": "m", "content": content, "stop_reason": stop}


def response(status, *output):
    return {"id": "r", "object": "response", "status": status, "model": "m", "output": output}


def candidate(*parts, **end):
    return {"candidates": [{"content": {"role": "model", "parts": parts}, **end}]}


WORDS, STOPPED = [{"type": "text", "text": "Ho"}], {"finishReason": "STOP"}
SAID = {"type": "message", "id": "x", "role": "assistant", "content": [{"type": "output_text", "text": "Ho"}]}
OTHER_APIS = {
    "anthropic": ("/v1/messages", QUESTION | {"max_tokens": 50}),
    "openai": ("/v1/responses", {"model": "m", "input": "Hello", "store": False}),
    "gcp_gemini": ("/v1beta/models/m:generateContent", {"contents": [{"role": "user", "parts": [{"text": "Hello"}]}]}),
}


@pytest.mark.parametrize(
    ("kind", "told", "kept"),
    [
        ("anthropic", message(WORDS, "end_turn"), True),
        ("anthropic", message([], "end_turn"), False),
        ("anthropic", message([{"type": "thinking", "thinking": "Hm", "signature": "s"}], "end_turn"), False),
        ("anthropic", message(WORDS, None), False),
        ("anthropic", message(WORDS, "pause_turn"), False),
        ("openai", response("completed", SAID), True),
        ("openai", response("completed"), False),
        ("openai", response("completed", {"type": "reasoning", "id": "a", "summary": []}), False),
        ("openai", response("in_progress", SAID), False),
        ("gcp_gemini", candidate({"text": "Ho"}, **STOPPED), True),
        ("gcp_gemini", candidate(**STOPPED), False),
        ("gcp_gemini", candidate({"text": "Hm", "thought": True}, **STOPPED), False),
        ("gcp_gemini", candidate({"text": "Ho"}), False),
    ],
)
async def test_an_answer_of_each_api_is_kept_where_it_has_content_and_an_end(world, kind, told, kept):
    there = f"{{kind: {kind}, base_url: 'http://127.0.0.1:1/v1', api_key: env:PATH}}"
    gateway = world(f"providers: {{a: {there}, b: {{kind: mock}}}}\n{RULES}")
    path, body = OTHER_APIS[kind]
    await paid(gateway, body, told, path)
    assert hit(await again(gateway, body, path)) is kept


def piece(text, index=0, finish=None):
    return event({"model": "m-1", "choices": [{"index": index, "delta": {"content": text}, "finish_reason": finish}]})


@pytest.mark.parametrize(
    ("pieces", "asked", "kept"),
    [
        ((TEXT, STOP, USED, DONE), {}, True),
        ((b": hello\n\n\n\nretry: 3000\n\n", TEXT, STOP, USED, DONE), {}, True),
        ((TEXT, event(b'{"choices": [{"ind'), STOP, USED, DONE), {}, False),
        ((TEXT, event(b"A" * 400), STOP, USED, DONE), {}, False),  # base64, which is no text
        ((TEXT, event(b'"text"'), STOP, USED, DONE), {}, False),
        ((TEXT, event(b"7"), b"x" * 300 + b"\n\n", STOP, USED, DONE), {}, True),  # the framing: they carry nothing
        ((STOP, USED, DONE), {}, False),
        ((piece(" \n"), STOP, USED, DONE), {}, False),
        ((TEXT, piece("Ho", 1), STOP, USED, DONE), {"n": 2}, False),
        ((TEXT, piece("Ho", 1, "stop"), STOP, USED, DONE), {"n": 2}, True),
        ((TEXT, piece("Ho", 1), STOP, USED, DONE), {}, False),
    ],
)
async def test_a_stream_is_kept_where_every_event_was_read_and_every_choice_ended(world, pieces, asked, kept):
    gateway = world("cache: {rules: [{ttl: 60s, sampled: true}]}")
    await paid_stream(gateway, STREAMED | asked, *pieces)
    assert hit(await again(gateway, STREAMED | asked)) is kept


async def test_an_event_beyond_the_limit_of_events_keeps_a_stream_out(world):
    gateway = world("limits: {sse_event: 1KiB}\ncache: {rules: [{ttl: 60s}]}")
    await paid_stream(gateway, STREAMED, TEXT, piece("x" * 5000), STOP, USED, DONE)
    assert not hit(await again(gateway, STREAMED))


@pytest.mark.parametrize("said", ["", "Hi"])
async def test_older_completions_without_words_are_not_kept(world, said):
    providers = "providers: {a: {kind: openai, base_url: 'http://127.0.0.1:8090/v1'}, b: {kind: mock}}"
    gateway = world(f"{providers}\n{RULES}")
    body, path = {"model": "m", "prompt": "Once", "max_tokens": 50}, "/v1/completions"
    answer = ANSWER | {"choices": [{"index": 0, "text": said, "finish_reason": "stop"}]}
    await paid(gateway, body, answer, path)
    assert hit(await again(gateway, body, path)) is bool(said)


# --- the client's own time


async def test_a_client_shortens_the_time_of_its_answer_and_never_lengthens_it(world):
    gateway = world(RULES)
    gateway.answers._store._now = gateway.clock
    await paid(gateway, x_ai_cache="ttl=10s")
    gateway.clock.now += 9
    assert hit(await again(gateway))
    assert hit(await again(gateway, x_ai_cache="ttl=10s"))
    assert not hit(await again(gateway, x_ai_cache="ttl=5s"))
    gateway.clock.now += 1
    assert not hit(await again(gateway))
    await paid(gateway, x_ai_cache="refresh, ttl=30d")
    gateway.clock.now += 59
    assert hit(await again(gateway, x_ai_cache="TTL=1h"))
    gateway.clock.now += 1
    assert not hit(await again(gateway, x_ai_cache="ttl=1h"))


@pytest.mark.parametrize("word", ["ttl=60", "ttl=0s", "ttl=-5s", "ttl=", "ttl=soon", "banana", "exact, ttl=1y"])
async def test_a_word_that_the_cache_does_not_know_is_ignored_and_named(world, word):
    gateway = world(RULES)
    _, _, head, _ = await paid(gateway, x_ai_cache=word)
    assert head.set_headers["x-ai-ignored"] == "x-ai-cache"
    reply = await again(gateway, x_ai_cache=word)
    assert hit(reply)
    assert reply.headers["x-ai-ignored"] == "x-ai-cache"

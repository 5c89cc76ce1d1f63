"""Conversations that end with an error of the gateway, of a provider, or of Envoy."""

import json

import pytest

from extproc.words import contract
from extproc.words.actions import CONTINUE, Chunk, Continue
from tests.talk import QUESTION, TOKENS, answers, asks, error, sends, streams, talk

# --- refusals


@pytest.mark.parametrize(
    ("says", "status", "code"),
    [
        (asks(authorization="Bearer nope"), 401, "invalid_key"),
        (asks("/v1/nothing"), 404, "path_not_found"),
        (asks("//v1/chat/completions"), 404, "path_not_found"),
        (asks("/v1/chat/completions/"), 404, "path_not_found"),
        (asks("/v1%2Fchat%2Fcompletions"), 404, "path_not_found"),
        (asks("/v1/chat/completions;a"), 404, "path_not_found"),
        (asks("/V1/chat/completions"), 404, "path_not_found"),
        (asks(method="GET"), 405, "method_not_allowed"),
        (asks(content_type="text/plain"), 415, "unsupported_encoding"),
        (asks(content_type="application/json;charset=utf-7"), 415, "unsupported_encoding"),
        (asks(content_encoding="gzip"), 415, "unsupported_encoding"),
        (asks(content_encoding="identity, gzip"), 415, "unsupported_encoding"),
        (asks(end=True), 400, "invalid_json"),
    ],
)
async def test_a_request_can_be_refused_at_its_headers(world, says, status, code):
    gateway = world()
    stream = gateway.stream()
    [answer] = await talk(stream, says)
    assert error(answer) == (status, code, "gateway")
    assert answer.reason == code
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-request-id"] == "r-1"
    assert answer.headers["x-should-retry"] == "false"
    assert [entry["error"] for entry in gateway.log] == [code]
    assert gateway.metric("extproc_refusals_total", code=code) == 1
    assert gateway.telemetry.in_flight == 0


@pytest.mark.parametrize(
    "kind",
    [
        "application/json",
        "application/json; charset=utf-8",
        'Application/JSON;charset="UTF-8"',
        "application/json; charset=utf-8; a=b",
    ],
)
async def test_json_under_any_of_its_media_types_is_read(world, kind):
    [reply, _] = await talk(world().stream(), asks(content_type=kind), sends(QUESTION))
    assert reply == CONTINUE


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, "invalid_json"),
        (b"{", 400, "invalid_json"),
        (b'{"model":"m","model":"n"}', 400, "invalid_json"),
        (b"[]", 400, "invalid_request"),
        ({"model": "m"}, 400, "invalid_request"),
        (QUESTION | {"model": "unknown"}, 404, "model_not_found"),
        (QUESTION | {"model": "a\r\nx: y"}, 400, "invalid_request"),
        (QUESTION | {"model": "../../x"}, 404, "model_not_found"),
        (QUESTION | {"model": "m" * 1_000_000}, 400, "invalid_request"),
        (QUESTION | {"model": "м"}, 400, "invalid_request"),
        (QUESTION | {"model": ["m"]}, 400, "invalid_request"),
        (QUESTION | {"stream": "true"}, 400, "invalid_request"),
    ],
)
async def test_a_request_can_be_refused_at_its_body(world, body, status, code):
    gateway = world(TOKENS)
    _, answer = await talk(gateway.stream(), asks(), sends(body))
    assert error(answer) == (status, code, "gateway")
    assert answer.headers["x-should-retry"] == "false"
    assert len(answer.body) < 1000
    assert await gateway.level("t") == (0, 0)
    assert gateway.metric("extproc_requests_total", operation="chat", status=str(status)) == 1


async def test_a_body_over_the_limit_is_refused(world):
    gateway = world("limits: {request_body: 1KiB}")
    _, answer = await talk(gateway.stream(), asks(), sends(b'{"a":"' + b"x" * 1024 + b'"}'))
    assert error(answer) == (413, "body_too_large", "gateway")


async def test_exchanges_beyond_the_limit_are_refused(world):
    gateway = world("limits: {exchanges: 1}")
    first, second = gateway.stream(), gateway.stream()
    assert await asks()(first) == CONTINUE
    [answer] = await talk(second, asks())
    assert error(answer) == (503, "overloaded", "gateway")
    assert "x-should-retry" not in answer.headers
    assert answer.headers["retry-after"] == "1"
    await first.on_end()
    assert (await talk(gateway.stream(), asks()))[0] == CONTINUE


async def test_the_list_of_models_is_answered_at_the_headers(world):
    gateway = world()
    stream = gateway.stream()
    [answer] = await talk(stream, asks("/v1/models", method="GET", end=True))
    assert [model["id"] for model in json.loads(answer.body)["data"]] == ["m", "n"]
    assert gateway.metric("extproc_requests_total", operation="list_models", status="200") == 1
    assert gateway.telemetry.in_flight == 0


# --- answers of providers and of Envoy


@pytest.mark.parametrize("status", [400, 404, 408, 422, 429, 500, 503])
async def test_an_error_of_the_provider_passes_and_costs_no_tokens(world, status):
    gateway = world(TOKENS)
    *_, told = await talk(gateway.stream(), asks(), sends(QUESTION), answers(status))
    assert not told.read_answer
    assert told.set_headers["x-ai-error-origin"] == "provider"
    assert told.set_headers["x-ai-provider"] == "a"
    assert await gateway.level("t") == (0, 0)
    assert [entry["status"] for entry in gateway.log] == [status]


async def test_a_client_that_leaves_in_the_middle_of_an_error_that_guardrails_do_not_read_pays_nothing(world):
    gateway = world(f"{TOKENS}\nguardrails: [{{name: g, kind: regex, on: [output], patterns: {{p: secret}}}}]")
    *_, piece = await talk(gateway.stream(), asks(), sends(QUESTION), answers(500), streams(b"{"))
    assert piece == Chunk(b"{")
    [entry] = gateway.log
    assert (entry["status"], entry["outcome"], entry["complete"]) == (500, "error", True)
    assert await gateway.level("t") == (0, 0)
    assert gateway.telemetry.in_flight == 0


@pytest.mark.parametrize(
    ("status", "advice"),
    [
        (400, {"x-should-retry": "false"}),
        (404, {"x-should-retry": "false"}),
        (408, {}),
        (429, {"retry-after": "1"}),
        (500, {}),
        (503, {"retry-after": "1"}),
    ],
)
async def test_an_error_tells_sdks_whether_to_retry(world, status, advice):
    """A provider's own value of the header is kept."""
    told = (await talk(world().stream(), asks(), sends(QUESTION), answers(status)))[-1].set_headers
    assert {name: told[name] for name in ("retry-after", "x-should-retry") if name in told} == advice
    own = {"retry_after": "7", "x_should_retry": "true"}
    told = (await talk(world().stream(), asks(), sends(QUESTION), answers(status, **own)))[-1].set_headers
    assert not {"retry-after", "x-should-retry"} & set(told)


async def test_a_refusal_for_a_disabled_model_may_be_retried_later(world):
    gateway = world("models: {m: {provider: a, disabled: true}}")
    _, answer = await talk(gateway.stream(), asks(), sends(QUESTION))
    assert error(answer) == (503, "no_provider_available", "gateway")
    assert answer.headers["retry-after"] == "30"


MESSAGES = "/v1/messages"
ASKED = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "Hello"}]}


@pytest.mark.parametrize(
    "says",
    [
        (asks(MESSAGES, authorization="Bearer nope"),),
        (asks(MESSAGES), sends({})),
        (asks(MESSAGES), sends(ASKED), answers()),
        (asks(MESSAGES), sends(ASKED), answers(400)),
        (asks(MESSAGES), sends(ASKED), answers(401)),
        (asks(MESSAGES), sends(ASKED), answers(503, x_extproc_hop="connect")),
        (asks(MESSAGES + "/count_tokens"), sends(ASKED)),
    ],
)
async def test_every_answer_to_anthropics_client_has_the_header_request_id(world, says):
    models = "models: {m: {provider: b}}\nproviders: {b: {kind: openai, base_url: 'http://127.0.0.1:8090/v1'}}"
    answer = (await talk(world(models).stream(), *says))[-1]
    headers = answer.set_headers if isinstance(answer, Continue) else answer.headers
    assert headers["request-id"] == "r-1"


async def test_anthropics_own_request_id_is_kept(world):
    *_, told = await talk(world().stream(), asks(MESSAGES), sends(ASKED), answers(request_id="req_1"))
    assert "request-id" not in told.set_headers


@pytest.mark.parametrize(
    "says",
    [asks("/v1/messages/nothing"), asks("/v1/vector_stores", anthropic_version="2023-06-01", method="GET", end=True)],
)
async def test_an_unknown_path_is_refused_in_the_shape_of_its_client(world, says):
    [answer] = await talk(world().stream(), says)
    assert answer.status == 404
    said = json.loads(answer.body)
    assert (said["type"], said["error"]["type"]) == ("error", "not_found_error")
    assert answer.headers["request-id"] == "r-1"


async def test_rate_headers_of_the_gateways_account_are_removed(world):
    gateway = world("budgets: [{name: r, unit: requests, limit: 9, window: minute}]")
    rates = {"x_ratelimit_limit_requests": "5", "anthropic_ratelimit_requests_limit": "5"}
    *_, told = await talk(gateway.stream(), asks(), sends(QUESTION), answers(**rates))
    assert {name.replace("_", "-") for name in rates} <= set(told.remove_headers)
    assert told.set_headers["x-ratelimit-limit-requests"] == "9"


@pytest.mark.parametrize("status", [401, 403])
async def test_a_rejected_credential_is_a_502_and_not_the_clients_fault(world, status):
    gateway = world(TOKENS)
    *_, answer = await talk(gateway.stream(), asks(), sends(QUESTION), answers(status))
    assert error(answer) == (502, "provider_credential_rejected", "provider")
    assert answer.headers["x-ai-provider"] == "a"
    assert answer.headers["x-should-retry"] == "false"
    assert await gateway.level("t") == (0, 0)


@pytest.mark.parametrize("reason", ["connect", "reset", "timeout", "overflow", "unhealthy", "credential", "other"])
async def test_a_failure_inside_the_hop_is_an_error_of_the_gateway(world, reason):
    gateway = world(TOKENS)
    *_, told = await talk(gateway.stream(), asks(), sends(QUESTION), answers(503, x_extproc_hop=reason))
    assert told == Continue({"x-ai-error-origin": "gateway", "retry-after": "1"}, ("x-extproc-hop",))
    assert await gateway.level("t") == (0, 0)
    assert gateway.log[0]["error"] == reason


@pytest.mark.parametrize(
    ("details", "attempts"), [("no_healthy_upstream", 0.0), ("response_timeout", 1.0), ("via_upstream", 0.0)]
)
async def test_a_local_reply_of_the_public_listener_is_an_error_of_the_gateway(world, details, attempts):
    gateway = world(TOKENS)
    *_, told = await talk(gateway.stream(), asks(), sends(QUESTION), answers(503, details=details, attempts=attempts))
    assert told == Continue({"x-ai-error-origin": "gateway", "retry-after": "1"})
    assert await gateway.level("t") == (0, 0)


async def test_a_local_reply_may_come_before_the_body(world):
    gateway = world(TOKENS)
    _, told = await talk(gateway.stream(), asks(), answers(413, details="request_payload_too_large", attempts=0.0))
    assert told.set_headers == {"x-ai-error-origin": "gateway", "x-should-retry": "false"}
    assert gateway.telemetry.in_flight == 0


async def test_a_local_reply_may_come_without_a_request(world):
    gateway = world(TOKENS)
    stream = gateway.stream()
    [told] = await talk(stream, answers(413, details="request_headers_too_large", attempts=0.0, x_ai_provider="forged"))
    assert told == Continue({"x-ai-error-origin": "gateway"}, ("x-ai-provider",))
    assert gateway.log == []
    assert gateway.telemetry.in_flight == 0


@pytest.mark.parametrize("status", [200, 404, 503])
async def test_a_provider_cannot_forge_internal_or_x_ai_headers(world, status):
    forged = {
        "x_extproc_id": "1",
        "x_extproc_targets": "2",
        "x_ai_cost": "0",
        "x_ai_provider": "other",
        "x_ai_new": "3",
    }
    *_, told = await talk(world().stream(), asks(), sends(QUESTION), answers(status, **forged))
    assert set(told.remove_headers) == {name.replace("_", "-") for name in forged}
    assert told.set_headers["x-ai-provider"] == "a"


async def test_the_providers_request_id_has_another_header(world):
    *_, told = await talk(world().stream(), asks(), sends(QUESTION), answers(x_request_id="theirs"))
    assert told.set_headers["x-ai-provider-request-id"] == "theirs"


FALLBACK = """
providers: {a: {kind: mock}, b: {kind: mock, base_url: 'http://127.0.0.1:8090/v1'}}
models: {one: {provider: a}, two: {provider: b, model: deux}}
virtual_models: {v: {targets: [{model: one}, {model: two}]}}
"""


@pytest.mark.parametrize(("attempts", "provider", "model"), [(1, "a", "one"), (2, "b", "deux"), (3, "b", "deux")])
async def test_the_number_of_the_try_names_the_provider_that_served(world, attempts, provider, model):
    gateway = world(FALLBACK)
    _, onward, told = await talk(
        gateway.stream(), asks(), sends(QUESTION | {"model": "v"}), answers(attempts=float(attempts))
    )
    assert onward.order == ("try-a", "try-b")
    assert onward.set_headers[contract.ATTEND] == contract.ATTEND_LATER
    assert told.set_headers["x-ai-provider"] == provider
    assert told.set_headers["x-ai-model"] == model
    assert told.set_headers["x-ai-attempts"] == str(attempts)


async def test_skipped_targets_are_in_the_log_and_the_serving_target_is_in_the_answer(world):
    text = FALLBACK.replace("{model: one}", "{model: one, disabled: true}, {model: two, tries: 2}")
    gateway = world(text)
    _, onward, told = await talk(gateway.stream(), asks(), sends(QUESTION | {"model": "v"}), answers(attempts=2.0))
    assert onward.order == ("try-b", "try-b")
    assert told.set_headers["x-ai-provider"] == "b"
    assert gateway.log[0]["skipped"] == {"one": "disabled"}
    assert gateway.metric("extproc_targets_skipped_total", reason="disabled") == 1


async def test_a_request_without_a_usable_target_is_refused_before_it_reserves(world):
    gateway = world(FALLBACK.replace("one: {provider: a}", "one: {provider: a, supports: []}") + TOKENS)
    body = QUESTION | {"model": "one", "tools": [{"type": "function", "function": {"name": "f"}}]}
    _, answer = await talk(gateway.stream(), asks(), sends(body))
    assert error(answer) == (400, "unsupported_by_targets", "gateway")
    assert json.loads(answer.body)["error"]["param"] == "tools"
    assert await gateway.level("t") == (0, 0)


async def test_only_targets_that_will_be_tried_are_reserved_for(world):
    text = FALLBACK.replace("}]}}", "}], retry: {attempts: 1}}}")
    gateway = world(text + "budgets: [{name: t, per: [provider], unit: requests, limit: 9, window: minute}]")
    stream = gateway.stream()
    await asks()(stream)
    await sends(QUESTION | {"model": "v"})(stream)
    assert await gateway.level("t:provider=a") == (0, 1)
    assert await gateway.level("t:provider=b") == (0, 0)
    await stream.on_end()

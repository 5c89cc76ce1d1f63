"""Attributes of spans: at most those that Envoy is configured for, never long, never a credential."""

import pytest

from extproc.envoy.server import answers
from extproc.operate.telemetry.traces import ATTRIBUTES, final, known
from extproc.wire.pb import extproc_pb2 as pb
from extproc.words import contract
from extproc.words.dialect import Report
from extproc.words.exchange import Usage, Verdict
from tests.telemetry.test_metrics import called

OF_CALLS = {"gen_ai.tool.name", "mcp.method.name", "mcp.protocol.version", "extproc.mcp_server", "extproc.profile"}


@pytest.fixture
def ended(exchange):
    found = exchange({"model": "m" * 1000, "messages": [{"role": "user", "content": "CANARY"}]}, labels={"run": "7"})
    found.route.forwarded, found.answer.attempts, found.answer.target = True, 2, found.route.targets[0]
    found.answer.report = Report(model="m-1", finish_reasons={0: "stop", 1: "length"})
    found.findings.verdicts.append(Verdict("no-keys", "input", "mask", {"aws": 1}))
    found.findings.guardrails.append("no-keys:mask")
    found.money.usage, found.money.cost = Usage(7, 3, source="provider"), 12_500
    found.end(whole=True)
    return found


def test_an_exchange_that_ended_has_all_attributes(ended):
    found = final(ended, {"a": "acme"}.get)
    assert set(found) == set(ATTRIBUTES) - {"error.type", *OF_CALLS}
    assert found["gen_ai.request.model"] == "m" * 256
    assert found["gen_ai.provider.name"] == "acme"
    assert found["gen_ai.response.finish_reasons"] == "stop,length"
    assert (found["gen_ai.usage.input_tokens"], found["gen_ai.usage.output_tokens"]) == ("7", "3")
    assert found["extproc.cost_usd"] == "0.0000125"
    assert "CANARY" not in str(found)


def test_an_exchange_that_leaves_has_what_is_known(ended):
    ended.request.head.path += "?key=CANARY"
    found = known(ended)
    assert set(found) < set(ATTRIBUTES)
    assert "gen_ai.usage.input_tokens" not in found
    assert "CANARY" not in str(found)


def test_a_stranger_has_no_consumer(exchange):
    stranger = exchange()
    del stranger.consumer, stranger.money.labels
    stranger.end(refused="invalid_key")
    found = final(stranger, str)
    assert found["error.type"] == "invalid_key"
    assert "extproc.consumer" not in found


def test_an_error_of_the_provider_is_an_error_type(ended):
    ended.answer.status = 429
    assert final(ended, str)["error.type"] == "429"


def test_a_call_of_a_tool_has_the_conventions_of_tools_and_none_of_models(exchange):
    call = called(exchange, failed=True)
    call.money.usage, call.money.cost = Usage(), 5_000_000
    found = final(call, str)
    assert set(found) <= set(ATTRIBUTES)
    assert {name: value for name, value in found.items() if name.startswith(("gen_ai", "mcp", "error"))} == {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": "add",
        "mcp.method.name": "tools/call",
        "mcp.protocol.version": "2025-06-18",
        "error.type": "tool_error",
    }
    assert (found["extproc.mcp_server"], found["extproc.profile"]) == ("github", "dev")
    assert found["extproc.cost_usd"] == "0.005"
    assert "CANARY" not in str(found)


def test_a_message_without_a_tool_names_its_method(exchange):
    listing = called(exchange)
    listing.request.operation = "tools/list"
    found = known(listing)
    assert found["mcp.method.name"] == "tools/list"
    assert not any(name.startswith("gen_ai") for name in found)


def test_they_are_metadata_behind_an_answer():
    message = pb.ProcessingResponse.FromString(answers.piece(b"x", True) + answers.traced({"error.type": "a"}))
    assert message.response_body.response.body_mutation.streamed_response.end_of_stream
    assert message.dynamic_metadata[contract.TRACE_NAMESPACE]["error.type"] == "a"

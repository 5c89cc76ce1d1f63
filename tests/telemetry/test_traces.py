"""Attributes of spans: at most those that Envoy is configured for, never long, never a credential."""

import pytest

from extproc.pb import extproc_pb2 as pb
from extproc.server import answers
from extproc.telemetry.traces import ATTRIBUTES, final, known
from extproc.words import contract
from extproc.words.dialect import Report
from extproc.words.exchange import Usage
from extproc.words.verdicts import Verdict


@pytest.fixture
def ended(exchange):
    found = exchange({"model": "m" * 1000, "messages": [{"role": "user", "content": "CANARY"}]}, labels={"run": "7"})
    found.forwarded, found.attempts, found.target = True, 2, found.targets[0]
    found.report = Report(model="m-1", finish_reasons={0: "stop", 1: "length"})
    found.verdicts.append(Verdict("no-keys", "input", "mask", {"aws": 1}))
    found.guardrails.append("no-keys:mask")
    found.usage, found.cost = Usage(7, 3, source="provider"), 12_500
    found.end(whole=True)
    return found


def test_an_exchange_that_ended_has_all_attributes(ended):
    found = final(ended, {"a": "acme"}.get)
    assert set(found) == set(ATTRIBUTES) - {"error.type"}
    assert found["gen_ai.request.model"] == "m" * 256
    assert found["gen_ai.provider.name"] == "acme"
    assert found["gen_ai.response.finish_reasons"] == "stop,length"
    assert (found["gen_ai.usage.input_tokens"], found["gen_ai.usage.output_tokens"]) == ("7", "3")
    assert found["extproc.cost_usd"] == "0.0000125"
    assert "CANARY" not in str(found)


def test_an_exchange_that_leaves_has_what_is_known(ended):
    ended.request.path += "?key=CANARY"
    found = known(ended)
    assert set(found) < set(ATTRIBUTES)
    assert "gen_ai.usage.input_tokens" not in found
    assert "CANARY" not in str(found)


def test_a_stranger_has_no_consumer(exchange):
    stranger = exchange()
    del stranger.consumer, stranger.labels
    stranger.end(refused="invalid_key")
    found = final(stranger, str)
    assert found["error.type"] == "invalid_key"
    assert "extproc.consumer" not in found


def test_they_are_metadata_behind_an_answer():
    message = pb.ProcessingResponse.FromString(answers.piece(b"x", True) + answers.traced({"error.type": "a"}))
    assert message.response_body.response.body_mutation.streamed_response.end_of_stream
    assert message.dynamic_metadata[contract.TRACE_NAMESPACE]["error.type"] == "a"

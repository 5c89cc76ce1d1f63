"""Usage reads the same in every provider's shape, whether the answer is passed through or translated."""

import json
from collections import Counter
from dataclasses import replace

import pytest

from extproc.dialects import client_apis, provider_apis
from extproc.exchange.translation.translate import Translation
from extproc.upstream.providers import kinds
from extproc.wire.framing.content_types import AMAZON
from extproc.words import contract
from extproc.words.contract import Service
from extproc.words.dialect import Report
from extproc.words.messages import Answer, Delta, Failed, Started, ToolCall, Used
from tests.dialects.shapes import EVIDENCE, SHAPES

APIS, DIALECTS = client_apis(), {**client_apis(), **provider_apis()}
LIMITS = {"event_limit": 1 << 20, "body_limit": 1 << 20}


def shapes(wanted):
    found = [shape for shape in SHAPES if wanted(shape)]
    return pytest.mark.parametrize("shape", found, ids=[shape.name for shape in found])


def passes_through(shape):
    return shape.dialect in APIS


def is_translated(shape):
    return shape.dialect in provider_apis()


@shapes(passes_through)
def test_an_answer_that_passes_through_has_the_expected_usage(shape):
    dialect, report = APIS[shape.dialect], Report()
    for data, _ in shape.payloads:
        dialect.observe(data, report)
    assert (report.usage, report.usage_refused, report.error) == (shape.usage, False, "")
    assert report.output_bytes == len((shape.written or "").encode())


@shapes(is_translated)
def test_an_answer_that_is_translated_has_the_expected_usage(shape):
    usage, written = streamed(shape) if shape.events else whole(shape)
    assert usage == shape.usage
    assert written == shape.written


def streamed(shape):
    decoder, usage, written = DIALECTS[shape.dialect].decoder(), None, ""
    events = [event for data, name in shape.payloads for event in decoder.feed(data, name)]
    events += decoder.end()
    assert not any(isinstance(event, Failed) for event in events)
    for event in events:
        if isinstance(event, Started | Used):
            usage = event.usage or usage
        elif isinstance(event, Delta):
            written += event.name + event.text
    return usage, written


def whole(shape):
    [(body, _)] = shape.payloads
    answer = DIALECTS[shape.dialect].decode_answer(body)
    if not isinstance(answer, Answer):
        return answer.usage, None
    return answer.usage, "".join(
        part.name + part.arguments if isinstance(part, ToolCall) else part.text for part in answer.choices[0].parts
    )


def crossings():
    """Each shape with each client API that it can be translated to."""
    for shape in filter(is_translated, SHAPES):
        for client in APIS.values():
            if client.translation is not None and client.family == DIALECTS[shape.dialect].family:
                yield pytest.param(shape, client, id=f"{client.name}: {shape.name}")


@pytest.mark.parametrize(("shape", "client"), list(crossings()))
def test_the_gateway_attachment_gets_the_usage_of_a_translation(counted, shape, client):
    translation = Translation(client, Service(shape.provider, shape.dialect, "m", anew=True))
    if shape.events:
        translation.streamed = True
        amazon = shape.dialect == "aws_converse" or shape.provider == "aws_bedrock"
        kind = AMAZON if amazon else "text/event-stream"
        stream = translation.stream(kind, **LIMITS)
        body, told = stream.feed(shape.wire(amazon=amazon), True), None
        assert not stream.failed
        kind = client.able.stream_type
    else:
        [(answer, _)] = shape.payloads
        body, told = translation.answer(answer)
        kind = "application/json"
    if told is not None:  # in a header
        told = contract.decode_usage(contract.encode_usage(told))
    _, report = counted(client, kind, body, told_usage=told)
    assert report.told_usage == shape.usage
    assert report.error == ""


NO_CACHE_WRITES = {"gemini_generate_content"}
"""APIs that cannot express them. The gateway attachment is told beside the answer."""


@shapes(lambda shape: is_translated(shape) and not shape.events)
def test_a_client_of_the_same_family_gets_the_same_usage(shape):
    """The written answer, read again, has the same counts; cached and cache-write tokens are separate."""
    for client in APIS.values():
        if client.translation is not None and client.family == DIALECTS[shape.dialect].family:
            [(body, _)] = shape.payloads
            answer, report = DIALECTS[shape.dialect].decode_answer(body), Report()
            client.observe(json.dumps(client.translation.encode_answer(answer)).encode(), report)
            wanted = replace(shape.usage, kinds=None, cost=None)
            if client.name in NO_CACHE_WRITES:
                wanted.cache_write_tokens = 0
            assert report.usage == wanted, client.name


def test_the_table_names_every_provider_and_its_source():
    assert {shape.provider for shape in SHAPES} == set(kinds())
    assert [name for name, count in Counter(shape.name for shape in SHAPES).items() if count > 1] == []
    for shape in SHAPES:
        assert shape.evidence in EVIDENCE
        assert shape.source or (shape.evidence == "none" and shape.note)
        assert (shape.answer is None) == bool(shape.events)
        assert shape.dialect in DIALECTS

"""Batches whose requests stand in the body: their bounds are summed, and each is checked as if it were sent alone."""

import json

import pytest

from extproc.access.kept.stages import _replace
from extproc.dialects import Finder, client_apis
from extproc.exchange.parsing import Inside
from extproc.wire.framing import Frame
from extproc.words.dialect import Endpoint, Report
from extproc.words.errors import Refusal

CLAUDE, GEMINI = client_apis()["anthropic_batches"], client_apis()["gemini_batches"]
NAMED = Endpoint("/v1beta/models/{model}:batchGenerateContent", "create_batch", "m")
HELLO = {"role": "user", "content": "Hello"}


def batch(*params):
    usual = {"model": "m", "max_tokens": 100, "messages": [HELLO]}
    return {"requests": [{"custom_id": str(at), "params": {**usual, **each}} for at, each in enumerate(params)]}


def test_bounds_of_the_requests_are_summed():
    by_id = {"type": "document", "source": {"type": "file", "file_id": "f"}}
    searching = [{"type": "web_search_20250305", "name": "w", "max_uses": 3}]
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}
    ask = CLAUDE.read(
        batch(
            {"tools": searching},
            {"tools": searching, "max_tokens": 7},
            {"messages": [{"role": "user", "content": [image, by_id]}]},
        )
    )
    assert (ask.model, ask.lasting, ask.batch, ask.requests, ask.answer_tokens) == ("m", True, True, 3, 207)
    assert (ask.images, ask.image_bytes, ask.image_data, ask.hosted) == (1, 4, ["AAAA"], ("web_search_20250305",))
    assert (ask.unbounded, ask.calls, ask.output_field) == (("document",), {"searches": 6}, None)
    assert ask.needs["state"] == ask.needs["hosted_tools"] == "requests"
    assert 0 < ask.longest_bytes < 250


def test_names_that_clients_choose_do_not_pile_up():
    odd = [{"messages": [{"role": "user", "content": [{"type": f"odd_{number}"}]}]} for number in range(1000)]
    ask = CLAUDE.read(batch(*odd))
    assert (len(ask.unbounded), ask.requests) == (8, 1000)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "requests"),
        ({"requests": []}, "requests"),
        ({"requests": [{"custom_id": "1"}]}, "requests[0].params"),
        (batch({}, {"model": "n"}), "requests[1].params"),
        (batch({}, {"model": 1}), "requests[1].params.model"),
        (batch({"messages": "x"}), "requests[0].params.messages"),
        (batch({"stream": True}), "requests[0].params.stream"),
        (batch({"api_base": "http://elsewhere"}), "requests[0].params"),
    ],
)
def test_a_batch_that_cannot_be_held_is_refused(body, param):
    with pytest.raises(Refusal) as refused:
        CLAUDE.read(body)
    assert (refused.value.kind.status, refused.value.param) == (400, param)


def test_fields_inside_of_requests_have_one_spelling():
    with pytest.raises(Refusal):
        Inside(CLAUDE.fields).check(batch({"Max_Tokens": 9}))


def test_each_request_gets_the_name_of_the_target():
    renamed = CLAUDE.offers.stored.renamed(batch({}, {}), "claude")["requests"]
    assert [(each["custom_id"], each["params"]["model"]) for each in renamed] == [("0", "claude"), ("1", "claude")]


def test_links_to_a_batch_lead_to_the_gateway():
    body = json.dumps({"id": "b_1", "url": "https://x/v9/messages/batches/b_1/results", "b": "https://x/b_1"}).encode()
    frame = Frame(body, body)
    _replace(frame, "b_1", "b_kept_x", CLAUDE.offers.stored.link)
    assert frame.raw == frame.data
    assert list(json.loads(frame.raw).values()) == [
        "b_kept_x",
        "/v1/messages/batches/b_kept_x/results",
        "https://x/b_1",
    ]


def test_progress_and_results_are_read():
    late = CLAUDE.offers.stored.late
    told = {"id": "b_1", "type": "message_batch", "processing_status": "ended", "request_counts": {"succeeded": 2}}
    progress = late.progress(json.dumps(told).encode())
    assert (progress.ended, progress.answered, progress.results) == (True, 2, ["/v1/messages/batches/b_1/results"])
    assert not late.progress(b'{"id":"b_1","processing_status":"canceling"}').ended
    assert late.progress(b'{"id":"../b","processing_status":"ended"}').results == []
    message = {"model": "m", "usage": {"input_tokens": 5, "output_tokens": 2, "service_tier": "batch"}}
    line = {"custom_id": "1", "result": {"type": "succeeded", "message": message}}
    assert late.line(json.dumps(line).encode()).usage.input_tokens == 5
    for none in (b"", b"[]", b"\xff", b'{"result":null}', b'{"result":{"type":"expired"}}'):
        assert late.line(none) is None
    for none in (b"", b"[]", b"\xff"):
        assert late.progress(none) is None
        CLAUDE.observe(none, report := Report())
        assert (list(report.kept), report.pending) == ([], "")


def contents(*requests, **more):
    listed = [{"request": {"contents": [{"parts": [{"text": "Hello"}]}], **each}} for each in requests]
    return {"batch": {"displayName": "b", "inputConfig": {"requests": {"requests": listed}, **more}}}


def test_gemini_names_the_model_in_the_path_and_in_the_requests():
    ask = GEMINI.read(contents({"generationConfig": {"maxOutputTokens": 7, "candidateCount": 2}}, {}), NAMED)
    assert (ask.model, ask.requests, ask.answer_tokens) == ("m", 2, 14 + 4096)
    made = GEMINI.offers.naming.for_model(contents({"model": "models/m"}, {}), "n")
    assert [each["request"].get("model") for each in made["batch"]["inputConfig"]["requests"]["requests"]] == [
        "models/n",
        None,
    ]
    spelled = GEMINI.offers.naming.spelled({"batch": {"input_config": {"metadata": {"my_key": 1}}}})
    assert spelled == {"batch": {"inputConfig": {"metadata": {"my_key": 1}}}}
    for wrong in ({}, {"batch": []}, contents(), contents({}, fileName="files/1"), {"batch": {"inputConfig": {}}}):
        with pytest.raises(Refusal, match="at least one request"):
            GEMINI.read(wrong, NAMED)


@pytest.mark.parametrize(
    ("method", "path", "name"),
    [
        ("GET", "/v1/batches/batch_kept_x", "openai_batches"),
        ("GET", "/v1/batches/kept_x", "gemini_batches"),
        ("GET", "/v1beta/batches/kept_x", "gemini_batches"),
        ("DELETE", "/v1/batches/kept_x", "gemini_batches"),
        ("DELETE", "/v1/batches/batch_kept_x", None),
        ("POST", "/v1/batches/kept_x:cancel", "gemini_batches"),
    ],
)
def test_a_call_belongs_to_the_api_whose_ids_look_so(method, path, name):
    found = Finder(client_apis().values()).calls(path).get(method)
    assert (found and found[0].name) == name

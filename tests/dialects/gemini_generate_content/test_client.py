"""Clients of Gemini's API: spellings, calls and their results, thinking that goes to another provider and back."""

import json
from base64 import b64encode, urlsafe_b64encode
from copy import deepcopy

import pytest

from extproc.dialects import client_apis
from extproc.dialects import gemini_generate_content as api
from extproc.dialects.gemini_generate_content.client_answer import encode_logprobs
from extproc.dialects.gemini_generate_content.schema import json_schema
from extproc.dialects.gemini_generate_content.signature import PACKED, mark, pack, unpack
from extproc.words.dialect import Destination, Endpoint, Report
from extproc.words.errors import Refusal
from extproc.words.exchange import Usage
from extproc.words.messages import Delta, Ended, Failed, Finished, Started, ThinkingPart, ToolCall, ToolResult, Used

PLAIN = Endpoint("/v1beta/models/{model}:generateContent", "chat", "m")
COUNT, BATCH, ONE = (client_apis()[f"gemini_{name}"] for name in ("count_tokens", "embeddings", "embed_content"))


def asking(*parts, **more):
    return {"contents": [{"role": "user", "parts": [*(parts or ({"text": "x"},))]}], **more}


def param(body, call=api.translation.decode_request):
    with pytest.raises(Refusal) as refused:
        call(body)
    assert refused.value.kind.status == 400
    return refused.value.param


# --- spellings


def test_names_are_written_in_camel_case_and_data_stays():
    call = {"function_call": {"name": "f", "args": {"a_b": {"c_d": 1}}}, "thought_signature": "a-_b"}
    result = {"function_response": {"name": "f", "response": {"a_b": 1}, "will_continue": False}}
    schema = {"type": "OBJECT", "properties": {"first_name": {"any_of": [{"max_length": "3"}]}}}
    body = {
        "contents": [{"role": "model", "parts": [call]}, {"parts": [result, {"inline_data": {"data": "-_8"}}]}],
        "tools": [
            {"function_declarations": [{"name": "f", "parameters": schema, "response_json_schema": {"x_y": {}}}]}
        ],
        "generation_config": {"max_output_tokens": 1, "_responseJsonSchema": {"a_b": 1}},
    }
    before = deepcopy(body)
    made = api.offers.naming.spelled(body)
    assert body == before
    assert made["contents"][0]["parts"][0] == {
        "functionCall": {"name": "f", "args": {"a_b": {"c_d": 1}}},
        "thoughtSignature": "a-_b",
    }
    assert made["contents"][1]["parts"][0]["functionResponse"]["response"] == {"a_b": 1}
    assert made["contents"][1]["parts"][1] == {"inlineData": {"data": "+/8="}}
    [function] = made["tools"][0]["functionDeclarations"]
    assert function["parameters"]["properties"] == {"first_name": {"anyOf": [{"maxLength": "3"}]}}
    assert function["responseJsonSchema"] == {"x_y": {}}
    assert made["generationConfig"]["maxOutputTokens"] == 1
    assert api.offers.naming.spelled(made) is made


@pytest.mark.parametrize(
    "body",
    [
        {"generation_config": {}, "generationConfig": {}},
        asking(generationConfig={"max_output_tokens": 1, "maxOutputTokens": 2}),
        {"contents": [{"parts": [{"inlineData": {"mime_type": "a", "mimeType": "b"}}]}]},
    ],
)
def test_a_field_in_two_spellings_is_refused(body):
    param(body, api.offers.naming.spelled)


@pytest.mark.parametrize("name", ["MaxOutputTokens", "maxoutputtokens", "max_Output_Tokens", "thinkingconfig"])
def test_a_limit_that_some_servers_would_read_is_refused(name):
    """Google's own servers refuse it, others match names without regard to case."""
    body = api.offers.naming.spelled(asking(generationConfig={name: 5}))
    assert param(body, lambda it: api.read(it, PLAIN)) == "generationConfig"


# --- the request


def test_results_without_ids_belong_to_the_calls_of_their_names_in_order():
    call = [{"functionCall": {"name": name}} for name in "fgf"]
    results = [{"functionResponse": {"name": name, "response": {"output": text}}} for name, text in ("f1", "g2", "f3")]
    prompt = api.translation.decode_request({"contents": [{"role": "model", "parts": call}, {"parts": results}]})
    ids = [part.id for part in prompt.messages[0].parts]
    assert len(set(ids)) == 3
    assert [(part.id, part.parts[0].text) for part in prompt.messages[1].parts] == [
        *zip(ids, "123", strict=True),
    ]


@pytest.mark.parametrize(
    ("response", "text", "error"),
    [
        ({"output": "a"}, "a", False),
        ({"result": {"a": 1}}, '{"a":1}', False),
        ({"error": "no"}, "no", True),
        ({"error": "no", "code": 3}, '{"error":"no","code":3}', False),
        ({}, "{}", False),
        (None, "{}", False),
    ],
)
def test_the_result_of_a_tool_is_its_only_field_or_all_of_it(response, text, error):
    body = asking({"functionResponse": {"name": "f", "response": response}})
    [part] = api.translation.decode_request(body).messages[0].parts
    assert part == ToolResult("f", part.parts, error=error, name="f")
    assert part.parts[0].text == text


@pytest.mark.parametrize(
    ("body", "where"),
    [
        ({"contents": []}, "contents"),
        ({"contents": [{"role": "system", "parts": []}]}, "contents[0].role"),
        (asking({"videoMetadata": {}}), "contents[0].parts[0]"),
        (asking({"executableCode": {"code": "1"}}), "contents[0].parts[0]"),
        (asking({"functionCall": {"args": {}}}), "contents[0].parts[0].functionCall.name"),
        (asking({"text": "x", "thoughtSignature": PACKED + "AAAA"}), "contents[0].parts[0].thoughtSignature"),
        (asking(cachedContent="cachedContents/a"), "cachedContent"),
        (asking(tools=[{"googleSearch": {}}]), "tools[0]"),
        (asking(generationConfig={"temperature": 3}), "generationConfig.temperature"),
        (asking(generationConfig={"responseMimeType": "text/x.enum"}), "generationConfig.responseMimeType"),
        (asking(generationConfig={"responseModalities": ["AUDIO"]}), "generationConfig.responseModalities"),
        (
            asking(generationConfig={"thinkingConfig": {"thinkingBudget": -2}}),
            "generationConfig.thinkingConfig.thinkingBudget",
        ),
        (asking(toolConfig={"functionCallingConfig": {"mode": "x"}}), "toolConfig.functionCallingConfig.mode"),
    ],
)
def test_a_request_that_cannot_be_translated_names_the_field(body, where):
    assert param(body) == where


@pytest.mark.parametrize(
    ("calling", "mode", "name", "tools"),
    [
        ({"mode": "ANY"}, "required", "", "fg"),
        ({"mode": "ANY", "allowedFunctionNames": ["g"]}, "tool", "g", "g"),
        ({"mode": "any", "allowedFunctionNames": ["g", "f"]}, "required", "", "fg"),
        ({"mode": "NONE"}, "none", "", "fg"),
        ({"mode": "VALIDATED", "allowedFunctionNames": ["f"]}, "auto", "", "f"),
    ],
)
def test_the_choice_of_tools(calling, mode, name, tools):
    declared = [{"functionDeclarations": [{"name": name} for name in "fg"]}]
    prompt = api.translation.decode_request(asking(tools=declared, toolConfig={"functionCallingConfig": calling}))
    assert (prompt.tool_choice.mode, prompt.tool_choice.name) == (mode, name)
    assert "".join(tool.name for tool in prompt.tools) == tools


def test_schemas_of_google_become_json_schema():
    own = {
        "type": "OBJECT",
        "properties": {"a": {"type": "STRING", "nullable": True, "enum": ["x"], "format": "enum"}},
        "items": {"anyOf": [{"type": "NUMBER"}], "nullable": True},
        "minProperties": "1",
        "propertyOrdering": ["a"],
        "example": {"a": "x"},
        "defs": {"type": {"type": "INTEGER"}},
    }
    made = json_schema(own)
    assert made == {
        "type": "object",
        "properties": {"a": {"type": ["string", "null"], "enum": ["x", None]}},
        "items": {"anyOf": [{"type": "number"}, {"type": "null"}]},
        "minProperties": 1,
        "examples": [{"a": "x"}],
        "$defs": {"type": {"type": "integer"}},
    }
    assert json_schema(made) == made


# --- thinking


def test_proofs_of_other_providers_survive_a_client_that_decodes_them():
    """Google's SDK decodes the base64 and writes it in the other alphabet."""
    for signature, redacted in (("sig/+?>", ""), ("", "data"), ("openai:rs_1:x", ""), ("", "")):
        text = pack(signature, redacted)
        assert text.startswith(PACKED)
        assert unpack(text) == (signature, redacted)
        assert unpack(text.translate(str.maketrans("+/", "-_"))) == (signature, redacted)
    assert pack(mark("R29vZ2xl")) == "R29vZ2xl"
    assert unpack("R29vZ2xl") == (mark("R29vZ2xl"), "")


def test_pieces_of_thinking_become_one_part_again():
    encoder = api.translation.encoder()
    events = [
        Started("id", "m"),
        *(Delta("thinking", text, 0) for text in ("Two ", "and two.")),
        Delta("thinking", "", 0, signature="sig"),
        Delta("text", "Fo", 1),
        Delta("text", "ur.", 1),
        Delta("tool_call", '{"a":', 2, id="c", name="f"),
        Delta("tool_call", "1}", 2),
        Finished("tool_calls"),
        Used(Usage(3, 7, reasoning_tokens=2)),
        Ended(),
    ]
    said = [json.loads(event[6:]) for each in events for event in encoder.feed(each).split(b"\n\n") if event]
    assert {event["responseId"] for event in said} == {"id"}
    assert said[-1]["usageMetadata"] == {
        "promptTokenCount": 3,
        "candidatesTokenCount": 5,
        "thoughtsTokenCount": 2,
        "totalTokenCount": 10,
    }
    parts = [part for event in said for part in event["candidates"][0]["content"]["parts"]]
    prompt = api.translation.decode_request({"contents": [{"role": "model", "parts": parts}]})
    thinking, text, call = prompt.messages[0].parts
    assert thinking == ThinkingPart("Two and two.", "sig")
    assert text.text == "Four."
    assert call == ToolCall("c", "f", '{"a":1}')


def test_a_failure_in_mid_stream_is_an_error_of_its_own():
    [event] = api.translation.encoder().feed(Failed("Overloaded", "overloaded_error")).split(b"\n\n")[:-1]
    assert json.loads(event[6:]) == {"error": {"code": 503, "message": "Overloaded", "status": "UNAVAILABLE"}}


# --- answers that pass


def test_usage_is_an_estimate_until_the_answer_has_a_finish_reason():
    report = Report()
    event = {"candidates": [{"content": {"parts": [{"text": "a"}]}}], "usageMetadata": {"promptTokenCount": 3}}
    api.observe(json.dumps(event).encode(), report)
    assert report.usage.source == "estimated"
    event["candidates"][0]["finishReason"] = "STOP"
    api.observe(json.dumps([event, event]).encode(), report)  # a stream that is no SSE
    assert (report.usage.source, report.output_bytes, report.finish_reasons) == ("provider", 3, {0: "STOP"})


def test_usage_is_found_at_the_edges_of_an_event_too_long_to_be_read():
    report = Report()
    tail = b'"}]}}],"usageMetadata":{"promptTokenCount":3,"candidatesTokenCount":900},"modelVersion":"m"}'
    api.observe_edges(b'{"candidates":[{"content":{"parts":[{"text":"aaa', tail, report, {})
    assert (report.usage.input_tokens, report.usage.output_tokens) == (3, 900)


# --- other operations


def test_a_count_of_a_whole_request_is_read_as_the_request_and_written_with_the_targets_name():
    inner = {**asking(), "model": "models/m", "system_instruction": {"parts": [{"text": "s"}]}}
    body = COUNT.offers.naming.spelled({"generate_content_request": inner})
    assert COUNT.read(body, PLAIN).free
    made = COUNT.offers.naming.for_model(body, "there")
    assert made["generateContentRequest"]["model"] == "models/there"
    assert "systemInstruction" in made["generateContentRequest"]
    assert COUNT.offers.naming.for_model(asking(), "there") == asking()
    param({"generateContentRequest": inner, "contents": []}, COUNT.offers.naming.spelled)


def test_embeddings_of_one_text_and_of_several():
    content = {"parts": [{"text": "a"}, {"text": "b"}]}
    request = {"content": content, "taskType": "CLUSTERING", "outputDimensionality": 4}
    for dialect, body in ((ONE, request), (BATCH, {"requests": [{**request, "model": "models/m"}]})):
        prompt = dialect.translation.decode_request(body)
        assert (prompt.input, prompt.purpose, prompt.dimensions) == (["ab"], "clustering", 4)
    mixed = {"requests": [request, {**request, "taskType": "CLASSIFICATION"}]}
    assert param(mixed, BATCH.translation.decode_request) == "requests"
    picture = {"content": {"parts": [{"inlineData": {"mimeType": "image/png", "data": "AA=="}}]}}
    assert param(picture, ONE.translation.decode_request) == "requests[0].content"
    assert ONE.read(picture, PLAIN).unseen
    renamed = BATCH.offers.naming.for_model({"requests": [{"model": "models/m", **request}]}, "there")
    assert renamed["requests"][0]["model"] == "models/there"


def test_base64_of_either_alphabet_is_the_same_picture():
    data = bytes(range(200, 256))
    spelled = api.offers.naming.spelled(asking({"inlineData": {"data": urlsafe_b64encode(data).decode().rstrip("=")}}))
    assert spelled["contents"][0]["parts"][0]["inlineData"]["data"] == b64encode(data).decode()


def test_a_conversation_with_foreign_proofs_is_written_anew_for_google():
    [trace] = api.translation.traces
    call = {"functionCall": {"name": "f", "args": {}}, "thoughtSignature": pack("")}
    thought = {"text": "t", "thought": True, "thoughtSignature": pack("s")}
    body = {"contents": [{"role": "model", "parts": [thought, call]}]}
    assert trace in json.dumps(body).encode()
    made, _ = api.encode_request(api.translation.decode_request(body), Destination("gemini-3-pro"))
    assert trace not in json.dumps(made).encode()
    assert made["contents"][0]["parts"][-1]["thoughtSignature"] == "skip_thought_signature_validator"


def test_probabilities_of_other_types_are_left_out():
    said = {"content": [{"token": "a", "logprob": "x", "top_logprobs": 5}, {"token": "b", "top_logprobs": ["c"]}, 7]}
    found = encode_logprobs(said)["logprobsResult"]
    assert [token["logProbability"] for token in found["chosenCandidates"]] == [0.0, 0.0]
    assert found["topCandidates"] == [{"candidates": []}] * 2

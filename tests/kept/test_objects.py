"""Ids of objects in bodies: opened for their consumer, refused where the gateway did not give them out, sealed in
answers.
"""

import json
from types import SimpleNamespace

import pytest

from extproc.access.kept import Ids, Object, owner
from extproc.access.kept.stages import Recall, Seal
from extproc.dialects import by_path
from extproc.dialects.openai_responses.client_answer import new_response_id
from extproc.dialects.openai_responses.shapes import new_id
from extproc.upstream.providers import ProviderSettings
from extproc.wire.framing import Frame
from extproc.words.dialect import Ask, Endpoint, Report
from extproc.words.errors import Refusal
from extproc.words.exchange import Consumer, RequestHead, ResponseHead, Target
from extproc.words.values import Secret
from tests.exchanges import new_exchange

RESPONSES, CHAT, MESSAGES = "/v1/responses", "/v1/chat/completions", "/v1/messages"
GEMINI, COMPACT, EDITS = "/v1beta/models/{model}:generateContent", "/v1/responses/compact", "/v1/images/edits"
DEMO, OTHER = Consumer("demo"), Consumer("other")
A, B = Target("m", "a", "m"), Target("n", "b", "n")


def said(*parts):
    return {"role": "user", "content": list(parts)}


ID = "file-68d5ab3d0c"
PLACES = [
    (RESPONSES, {"previous_response_id": ID}, "response"),
    (COMPACT, {"previous_response_id": ID}, "response"),
    (RESPONSES, {"conversation": ID}, "conversation"),
    (RESPONSES, {"conversation": {"id": ID}}, "conversation"),
    (RESPONSES, {"prompt": {"id": ID, "variables": {}}}, "prompt"),
    (RESPONSES, {"prompt": {"id": "", "variables": {"a": {"type": "input_file", "file_id": ID}}}}, "file"),
    (RESPONSES, {"input": [{"type": "item_reference", "id": ID}]}, "item"),
    (RESPONSES, {"input": [{"id": ID}]}, "item"),
    (RESPONSES, {"input": [{"type": "reasoning", "id": ID, "summary": []}]}, "item"),
    (RESPONSES, {"input": [{"type": "image_generation_call", "id": ID}]}, "item"),
    (RESPONSES, {"input": [said({"type": "input_file", "file_id": ID})]}, "file"),
    (RESPONSES, {"input": [said({"type": "input_image", "file_id": ID})]}, "file"),
    (
        RESPONSES,
        {"input": [{"type": "computer_call_output", "call_id": "c", "output": {"file_id": ID}}]},
        "file",
    ),
    (
        RESPONSES,
        {"input": [{"type": "function_call_output", "call_id": "c", "output": [{"file_id": ID}]}]},
        "file",
    ),
    (RESPONSES, {"input": [{"type": "code_interpreter_call", "container_id": ID}]}, "container"),
    (RESPONSES, {"tools": [{"type": "code_interpreter", "container": ID}]}, "container"),
    (RESPONSES, {"tools": [{"container": {"type": "auto", "file_ids": ["", ID]}}]}, "file"),
    (RESPONSES, {"tools": [{"type": "file_search", "vector_store_ids": [ID]}]}, "vector store"),
    (RESPONSES, {"tools": [{"type": "image_generation", "input_image_mask": {"file_id": ID}}]}, "file"),
    (RESPONSES, {"tools": [{"type": "shell", "environment": {"container_id": ID}}]}, "container"),
    (RESPONSES, {"tools": [{"environment": {"skills": [{"skill_id": ID}]}}]}, "skill"),
    (RESPONSES, {"tools": [{"type": "mcp", "tunnel_id": ID}]}, "tunnel"),
    (RESPONSES, {"input": [{"type": "additional_tools", "tools": [{"container": ID}]}]}, "container"),
    (RESPONSES, {"prompt_cache_options": {"comparison_response_id": ID}}, "response"),
    (CHAT, {"messages": [said({"type": "file", "file": {"file_id": ID}})]}, "file"),
    (CHAT, {"messages": [{"role": "assistant", "audio": {"id": ID}}]}, "sound"),
    (CHAT, {"audio": {"voice": {"id": ID}}}, "voice"),
    (CHAT, {"google": {"cached_content": ID}}, "cached content"),
    (CHAT, {"something": {"new": [{"file_id": ID}]}}, "file"),
    (EDITS, {"prompt": "a cat", "images": [{"file_id": ID}]}, "file"),
    (EDITS, {"prompt": "a cat", "mask": {"file_id": ID}}, "file"),
    (MESSAGES, {"container": ID}, "container"),
    (MESSAGES, {"container": {"id": ID, "skills": []}}, "container"),
    (MESSAGES, {"container": {"skills": [{"type": "custom", "skill_id": ID}]}}, "skill"),
    (MESSAGES, {"messages": [said({"type": "image", "source": {"type": "file", "file_id": ID}})]}, "file"),
    (MESSAGES, {"messages": [said({"type": "container_upload", "file_id": ID})]}, "file"),
    (MESSAGES, {"thread": {"type": "continue", "previous_message_id": ID}}, "message"),
    (MESSAGES, {"diagnostics": {"previous_message_id": ID}}, "message"),
    (GEMINI, {"cachedContent": ID}, "cached content"),
    (GEMINI, {"tools": [{"retrieval": {"vertexAiSearch": {"engine": ID}}}]}, "search engine"),
    (GEMINI, {"tools": [{"fileSearch": {"fileSearchStoreNames": [ID]}}]}, "file search store"),
]


@pytest.fixture
def ids(monkeypatch):
    for name in ("A_KEY", "B_KEY"):
        monkeypatch.setenv(name, f"secret of {name}")
    kinds = {"a": "A_KEY", "b": "B_KEY", "keyless": None}
    return Ids(
        {
            name: ProviderSettings(kind="openai", base_url="http://127.0.0.1/v1", api_key=key and Secret("env", key))
            for name, key in kinds.items()
        },
        None,
    )


class Names:
    """A catalogue of the models m, at the provider a, and local, at one without a key."""

    def resolve(self, name):
        return {"m": SimpleNamespace(targets=(A,)), "local": SimpleNamespace(targets=(Target("l", "keyless", "l"),))}[
            name
        ]


@pytest.fixture
def exchange():
    def make(path, consumer=DEMO):
        made = new_exchange("id", RequestHead("POST", path, {}))
        made.request.dialect, made.consumer, made.request.endpoint = by_path()[path], consumer, Endpoint(path, "chat")
        return made

    return make


@pytest.fixture
def recalled(ids, exchange):
    """The outcome of a request."""

    def recall(path, body, *, foreign="refuse", consumer=DEMO, model="m", raw=None):
        fields = {"model": model, **body} if path != GEMINI else body
        made = exchange(path, consumer)
        made.request.json, made.request.ask = json.loads(json.dumps(fields)), Ask(model)
        made.request.body = raw or json.dumps(fields).encode()
        Recall(ids, Names(), foreign)(made)
        return made

    return recall


def body_of(place, id):
    return {"input": "Hello", **json.loads(json.dumps(place).replace(ID, id))}


@pytest.mark.parametrize(("path", "place", "kind"), PLACES)
def test_every_place_of_an_id_is_guarded(ids, recalled, path, place, kind):
    with pytest.raises(Refusal) as refused:
        recalled(path, body_of(place, ID))
    assert (refused.value.kind.status, refused.value.kind.code) == (400, "foreign_object")
    assert f" {kind} " in refused.value.message
    assert ID.encode() in recalled(path, body_of(place, ID), foreign="allow").request.body
    assert ID.encode() in recalled(path, body_of(place, ID), foreign=["x", "file-68*"]).request.body
    assert ID.encode() in recalled(path, body_of(place, ID), model="local").request.body
    sealed = ids.seal("demo", Object("b", "n", ID))
    mine = recalled(path, body_of(place, sealed))
    assert (json.loads(mine.request.body), mine.route.kept.keeper) == (mine.request.json, "b")
    assert mine.request.json == body_of(place, ID) | ({} if path == GEMINI else {"model": "m"})
    assert mine.route.kept.ids == {ID: sealed}
    for foreign in ("refuse", "allow", ["*"]):
        with pytest.raises(Refusal) as refused:
            recalled(path, body_of(place, sealed), consumer=OTHER, foreign=foreign)
        assert (refused.value.kind.status, refused.value.kind.code) == (404, "object_not_found")


@pytest.mark.parametrize("uri", ["gs://bucket/a.pdf", "https://generativelanguage.googleapis.com/v1beta/files/abc"])
def test_files_at_google_are_objects_and_addresses_on_the_web_are_not(recalled, uri):
    parts = [{"role": "user", "parts": [{"fileData": {"fileUri": uri}}]}]
    with pytest.raises(Refusal, match="foreign_objects"):
        recalled(GEMINI, {"contents": parts})
    recalled(GEMINI, {"contents": parts}, foreign=["gs://bucket/*", "https://generativelanguage.*"])
    web = [{"role": "user", "parts": [{"fileData": {"fileUri": "https://www.youtube.com/watch?v=1"}}]}]
    recalled(GEMINI, {"contents": web})


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (RESPONSES, {"input": [{"type": "message", "role": "assistant", "id": "msg_1", "content": []}]}),
        (RESPONSES, {"input": [{"type": "function_call", "id": "fc_1", "call_id": "call_1", "arguments": "{}"}]}),
        (RESPONSES, {"input": [{"type": "reasoning", "id": "rs_1", "encrypted_content": "abc", "summary": []}]}),
        (RESPONSES, {"input": [{"type": "image_generation_call", "id": "ig_1", "result": "abc"}]}),
        (
            RESPONSES,
            {"input": [{"type": "function_call", "id": "fc_1"}, {"type": "item_reference", "id": "fc_1"}]},
        ),
        (RESPONSES, {"input": [{"role": "assistant", "content": [{"annotations": [{"file_id": "file-1"}]}]}]}),
        (RESPONSES, {"tools": [{"name": "f", "parameters": {"properties": {"container_id": {"default": "a"}}}}]}),
        (RESPONSES, {"metadata": {"file_id": "file-1"}, "tools": [{"container": {"type": "auto"}}]}),
        (CHAT, {"tools": [{"function": {"parameters": {"default": {"file_id": "x"}}}}], "prompt": "container"}),
        (MESSAGES, {"messages": [{"role": "assistant", "content": [{"type": "tool_use", "input": {"file_id": "x"}}]}]}),
        (MESSAGES, {"container": {"skills": [{"type": "anthropic", "skill_id": "xlsx"}]}}),
        (GEMINI, {"contents": [{"parts": [{"functionCall": {"name": "f", "args": {"file_id": "x"}}}]}]}),
        (GEMINI, {"contents": [{"parts": [{"functionResponse": {"response": {"fileUri": "gs://x"}}}]}]}),
        (EDITS, {"prompt": "file_id"}),
    ],
)
def test_whole_items_and_json_of_the_client_are_left_alone(recalled, path, body):
    made = recalled(path, body)
    assert (made.route.kept.ids, made.route.kept.keeper, made.request.masked) == ({}, "", False)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": [{"type": "item_reference", "id": new_id("fc")}]}, "input.id"),
        ({"input": [{"id": new_id("rs")}]}, "input.id"),
        ({"previous_response_id": new_id("resp")}, "previous_response_id"),
        ({"previous_response_id": new_response_id("chatcmpl-1")}, "previous_response_id"),
    ],
)
def test_a_reference_to_a_translated_answer_says_what_to_set(recalled, fields, param):
    """No provider keeps it. A target that could be down is not asked for it."""
    for foreign in ("refuse", "allow"):
        with pytest.raises(Refusal) as refused:
            recalled(RESPONSES, fields, foreign=foreign)
        assert (refused.value.kind.status, refused.value.param) == (404, param)
        assert "'store' set to false" in refused.value.message


def test_names_of_fields_may_be_escaped(recalled):
    raw = b'{"model":"m","input":[{"role":"user","content":[{"type":"input_file","f\\u0069le_id":"file-1"}]}]}'
    with pytest.raises(Refusal, match="foreign_objects"):
        recalled(RESPONSES, json.loads(raw), raw=raw)
    raw = raw.replace(b"f\\u0069le_id", b"x").replace(b'"input"', b'"pr\\u0065vious_response_id": "resp_1", "input"')
    with pytest.raises(Refusal, match="foreign_objects"):
        recalled(RESPONSES, json.loads(raw), raw=raw)


def test_the_rest_of_a_body_stays_byte_for_byte(ids, recalled):
    sealed = ids.seal("demo", Object("a", "m", "msg_1"))
    raw = b'{"model":"m", "input":[{"id":"%b" , "role":"assistant","content":"\\u0041 1.0"}],"temperature":1.0}'
    made = recalled(RESPONSES, json.loads(raw % sealed.encode()), raw=raw % sealed.encode())
    assert b'"temperature":1.0' in made.request.body
    assert b'"content":"\\u0041 1.0"' in made.request.body
    assert made.request.json["input"][0]["id"] == "msg_1"
    assert made.route.kept.keeper == ""  # a whole item: any target can take it


def test_objects_of_two_providers_do_not_meet(ids, recalled):
    one, other = (ids.seal("demo", Object(name, "m", "file-1")) for name in "ab")
    with pytest.raises(Refusal, match="another provider"):
        recalled(RESPONSES, {"input": [said({"file_id": one}, {"file_id": other})]})


# --- answers


@pytest.fixture
def sealed(ids, exchange):
    """The events of an answer as a client gets them, and the exchange."""

    def seal(path, body, *events):
        made = exchange(path)
        made.request.json, made.answer.target, made.answer.report = {"model": "m", **body}, A, Report()
        made.request.body, made.answer.head = json.dumps(body).encode(), ResponseHead(200, {})
        made.request.ask = made.request.dialect.read(made.request.json)
        Recall(ids, Names())(made)
        stage, frames = Seal(ids), []
        if not stage.needed(made, None):
            return list(events), made
        for event in events:
            data = json.dumps(event).encode()
            frame = Frame(b"data: " + data + b"\n\n", data)
            made.request.dialect.observe(data, made.answer.report)
            frames += stage(made, [frame], False)
        assert all(frame.raw == b"data: " + frame.data + b"\n\n" for frame in frames)
        return [json.loads(frame.data) for frame in frames], made

    return seal


def opened(ids, id):
    assert id.partition("_")[2].startswith("kept_"), id
    return ids.open(owner(DEMO), id).id


def test_ids_of_a_stored_response_and_its_items_are_sealed(ids, sealed):
    head = {"id": "resp_1", "store": True, "conversation": {"id": "conv_1"}, "status": "in_progress", "output": []}
    message = {"type": "message", "id": "msg_1", "role": "assistant", "content": []}
    events, _ = sealed(
        RESPONSES,
        {"input": "Hello"},
        {"type": "response.created", "response": head},
        {"type": "response.output_item.added", "item": message},
        {"type": "response.output_text.delta", "item_id": "msg_1", "delta": 'see msg_1 and "msg_1"'},
        {"type": "response.completed", "response": {**head, "status": "completed", "output": [message]}},
    )
    assert opened(ids, events[0]["response"]["id"]) == "resp_1"
    assert opened(ids, events[0]["response"]["conversation"]["id"]) == "conv_1"
    assert opened(ids, events[1]["item"]["id"]) == "msg_1"
    assert events[2]["item_id"] == events[1]["item"]["id"] == events[3]["response"]["output"][0]["id"]
    assert events[2]["delta"] == 'see msg_1 and "msg_1"'


def test_an_answer_in_the_background_is_sealed_even_if_it_says_that_it_is_not_stored(ids, sealed):
    answer = {"id": "resp_1", "store": False, "background": True, "status": "queued", "output": []}
    for body in ({"store": False, "background": True}, {"background": True}):
        [event], _ = sealed(RESPONSES, {"input": "Hello", **body}, answer)
        assert opened(ids, event["id"]) == "resp_1"


def test_ids_of_an_answer_that_is_not_stored_stay(sealed):
    answer = {"id": "resp_1", "store": False, "status": "completed", "output": [{"type": "message", "id": "msg_1"}]}
    for body in ({"store": False}, {}):
        [event], _ = sealed(RESPONSES, {"input": "Hello", **body}, answer)
        assert event == answer


def test_containers_and_files_that_tools_made_are_sealed(ids, sealed):
    note = {"type": "container_file_citation", "container_id": "cntr_1", "file_id": "cfile_1"}
    item = {"type": "code_interpreter_call", "id": "ci", "container_id": "cntr_1"}
    events, _ = sealed(
        RESPONSES,
        {"input": "Hello", "store": False, "tools": [{"type": "code_interpreter", "container": {"type": "auto"}}]},
        {"type": "response.output_item.added", "item": item},
        {"type": "response.output_text.annotation.added", "annotation": note},
    )
    assert opened(ids, events[0]["item"]["container_id"]) == "cntr_1"
    assert events[0]["item"]["id"] == "ci"
    assert opened(ids, events[1]["annotation"]["file_id"]) == "cfile_1"
    assert events[1]["annotation"]["container_id"] == events[0]["item"]["container_id"]


def test_claudes_containers_threads_and_files_are_sealed(ids, sealed):
    asked = {"max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]}
    code = {"tools": [{"type": "code_execution_20250825", "name": "code_execution"}]}
    made = {"type": "code_execution_output", "file_id": "file_1"}
    block = {"type": "code_execution_tool_result", "tool_use_id": "srvtoolu_1", "content": {"content": [made]}}
    events, _ = sealed(
        MESSAGES,
        asked | code,
        {"type": "message_start", "message": {"id": "msg_1", "usage": {}}},
        {"type": "content_block_start", "index": 0, "content_block": block},
        {"type": "message_delta", "delta": {"container": {"id": "container_1"}}, "usage": {}},
    )
    assert opened(ids, events[1]["content_block"]["content"]["content"][0]["file_id"]) == "file_1"
    assert events[1]["content_block"]["tool_use_id"] == "srvtoolu_1"
    assert opened(ids, events[2]["delta"]["container"]["id"]) == "container_1"
    for wish in ({"thread": {"type": "create"}}, {"diagnostics": {"previous_message_id": None}}):
        [whole], _ = sealed(MESSAGES, asked | wish, {"type": "message", "id": "msg_1", "content": []})
        assert opened(ids, whole["id"]) == "msg_1"
    [plain], _ = sealed(MESSAGES, asked, {"type": "message", "id": "msg_1", "content": []})
    assert plain["id"] == "msg_1"


def test_a_sound_of_a_chat_can_be_named_again(ids, sealed, recalled):
    asked = {"messages": [{"role": "user", "content": "Hi"}], "modalities": ["text", "audio"], "audio": {"voice": "a"}}
    answer = {"choices": [{"index": 0, "message": {"role": "assistant", "audio": {"id": "audio_1", "data": "x"}}}]}
    [event], _ = sealed(CHAT, asked, answer)
    id = event["choices"][0]["message"]["audio"]["id"]
    assert opened(ids, id) == "audio_1"
    again = recalled(CHAT, {"messages": [{"role": "assistant", "audio": {"id": id}}]})
    assert again.request.json["messages"][0]["audio"]["id"] == "audio_1"
    assert again.route.kept.keeper == "a"


def test_a_file_for_a_batch_names_no_objects(ids, recalled, exchange):
    line = {"body": {"model": "m", "input": [{"type": "item_reference", "id": "msg_1"}], "previous_response_id": "x"}}
    for id in ("resp_1", ids.seal("demo", Object("a", "m", "resp_1"))):
        made = exchange("/v1/files")
        lines = [{"body": {**line["body"], "previous_response_id": id}}]
        made.request.json, made.request.ask = {"purpose": "batch", "file": {"lines": lines}}, Ask("m")
        made.request.body = b"--boundary\r\n" + json.dumps(lines).encode()
        with pytest.raises(Refusal):
            Recall(ids, Names())(made)


def test_a_list_of_items_goes_on_behind_a_sealed_one(ids, sealed):
    listed = {"object": "list", "data": [{"id": "msg_0", "type": "message"}], "first_id": "msg_0", "last_id": "msg_0"}
    [event], _ = sealed(RESPONSES, {"input": "Hello"}, listed)
    assert opened(ids, event["last_id"]) == "msg_0"
    assert event["data"][0]["id"] == event["first_id"] == event["last_id"]

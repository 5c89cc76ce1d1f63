import json
from urllib.parse import unquote

import pytest

from extproc.dialects import by_path, client_apis
from extproc.exchange.parsing import BodyLimits, Classify, Parse, listed_at
from extproc.wire.framing.names import Names, fold
from extproc.words.errors import Refusal
from extproc.words.exchange import RequestHead
from tests.exchanges import new_exchange


def classify(path, method="POST", **headers):
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    exchange = new_exchange("id", RequestHead(method, path, given))
    Classify()(exchange)
    return exchange


def code(call, *arguments, **more):
    with pytest.raises(Refusal) as refused:
        call(*arguments, **more)
    return refused.value.kind.code


@pytest.mark.parametrize(
    ("path", "dialect", "operation"),
    [
        ("/v1/chat/completions", "openai_chat", "chat"),
        ("/v1/chat/completions?api-version=1", "openai_chat", "chat"),
        ("/v1/embeddings", "openai_embeddings", "embeddings"),
        ("/v1beta/models/m:generateContent", "gemini_generate_content", "chat"),
        ("/v1beta/models/m:streamGenerateContent?alt=sse&key=k", "gemini_generate_content", "chat"),
        ("/v1beta/models/a/b:countTokens", "gemini_count_tokens", "count_tokens"),
        ("/v1beta/models/m:embedContent", "gemini_embed_content", "embeddings"),
        ("/v1beta/models/m:batchEmbedContents", "gemini_embeddings", "embeddings"),
    ],
)
def test_the_path_determines_the_api(path, dialect, operation):
    exchange = classify(path)
    assert (exchange.request.dialect.name, exchange.request.operation) == (dialect, operation)


@pytest.mark.parametrize(
    "path",
    ["", "/", "*", "/v1", "/v1/chat/completions/", "/v2/chat/completions", "/v1/models/", "/v1/chat%2fcompletions"],
)
def test_an_unknown_path_is_a_404_in_the_default_shape(path):
    exchange = new_exchange("id", RequestHead("POST", path, {}))
    assert code(Classify(), exchange) == "path_not_found"
    assert exchange.request.dialect.replies is by_path()["/v1/chat/completions"].replies
    assert exchange.request.operation == "unknown"


@pytest.mark.parametrize("path", ["/v1beta/models/m:generateAnswer", "/v1beta/cachedContents"])
def test_an_operation_of_gemini_that_is_not_served_is_a_404_in_its_shape(path):
    exchange = new_exchange("id", RequestHead("POST", path, {"x-goog-api-client": "google-genai-sdk/1"}))
    assert code(Classify(), exchange) == "path_not_found"
    assert exchange.request.dialect.name.startswith("gemini")


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(
    "path",
    [
        *("/v1/models", "/v1/models/m", "/v1/models/openai/gpt-4o", "/v1/models/openai%2Fgpt-4o"),
        *("/v1beta/models", "/v1beta/models/m?key=k"),
    ],
)
def test_requests_for_models_are_recognised(path, method):
    assert classify(path, method).request.operation == "list_models"


@pytest.mark.parametrize(
    ("path", "method", "allow"), [("/v1/models", "POST", "GET, HEAD"), ("/v1/embeddings", "GET", "POST")]
)
def test_another_method_is_a_405_that_names_the_allowed_one(path, method, allow):
    with pytest.raises(Refusal) as refused:
        classify(path, method)
    assert (refused.value.kind.status, refused.value.headers) == (405, {"allow": allow})


@pytest.mark.parametrize("name", ["m", "a/b", "a%2Fb", "a:b", "...", "a..b", "%252e%252e"])
def test_models_in_a_path_are_read(name):
    for base in ("/v1/models", "/v1beta/models"):
        assert listed_at(f"{base}/{name}") == unquote(name)


@pytest.mark.parametrize(
    "name", ["", "/", "a/", "/a", "a//b", ".", "..", "../x", "a/../b", "%2e%2e", "a%2F..%2Fb", "a%2f"]
)
def test_a_path_that_leads_elsewhere_names_no_model(name):
    assert not listed_at(f"/v1/models/{name}")
    assert not listed_at(f"/v1beta/models/{name}")


@pytest.mark.parametrize(
    "kind",
    [
        "text/plain",
        "multipart/form-data; boundary=a",
        "application/x-www-form-urlencoded",
        "",
        "application/json,application/json",
        "application/json; charset=utf-16",
        "application/json; charset=utf-8; charset=utf-16",
        "application/json; charset =utf-7",
        "application/jsonp",
    ],
)
def test_a_media_type_other_than_json_in_utf8_is_a_415(kind):
    assert code(classify, "/v1/chat/completions", content_type=kind) == "unsupported_encoding"


@pytest.mark.parametrize("encoding", ["gzip", "br", "deflate", "zstd", "x", "gzip, identity"])
def test_an_encoded_body_is_a_415(encoding):
    assert code(classify, "/v1/chat/completions", content_encoding=encoding) == "unsupported_encoding"


def parse(body, **limits):
    exchange = classify("/v1/chat/completions")
    exchange.request.body = body
    Parse(BodyLimits(limits.get("max_bytes", 1000), limits.get("max_depth", 16)))(exchange)
    return exchange


@pytest.mark.parametrize(
    "name", ["Model", "MODEL", "\uff4dodel", "ſtream", "N", "Max_Tokens", "toolſ", "Thin\u212aing", "API_BASE"]
)
def test_a_field_name_that_servers_may_read_as_another_is_refused(name):
    with pytest.raises(Refusal) as refused:
        parse(json.dumps({"model": "m", "messages": [{}], name: 1}).encode())
    assert (refused.value.kind.code, refused.value.param) == ("invalid_request", fold(name))


def test_every_field_that_the_gateway_relies_on_has_one_spelling():
    for dialect in client_apis().values():
        if dialect.endpoints.paths:
            names = Names(dialect.fields.relied_on)
            names.check(dict.fromkeys(dialect.fields.relied_on))
            for field in dialect.fields.relied_on:
                with pytest.raises(Refusal):
                    names.check({field.upper(): 1})


def test_a_field_that_a_target_changes_has_one_spelling():
    exchange = classify("/v1/chat/completions")
    exchange.request.body = b'{"model":"m","messages":[{}],"Temperature":2}'
    Parse(BodyLimits(1000, 16))(exchange)
    assert code(Parse(BodyLimits(1000, 16), {"temperature"}), exchange) == "invalid_request"


def test_unused_field_names_are_accepted_in_any_spelling():
    exchange = parse('{"model":"m","messages":[{"Colour":"red"}],"mоdel":1,"Temperature":1,"é":2,"É":3}'.encode())
    assert list(exchange.request.json)[2:] == ["mоdel", "Temperature", "é", "É"]


def test_addresses_and_credentials_in_a_body_are_removed():
    exchange = parse(b'{"model":"m","api_base":"http://x","messages":[{}],"extra_headers":{"a":"b"}}')
    assert exchange.request.json == {"model": "m", "messages": [{}]}
    assert exchange.request.ignored == ("api_base", "extra_headers")


def test_a_byte_order_mark_is_refused_with_its_name():
    with pytest.raises(Refusal, match="byte order mark"):
        parse(b'\xef\xbb\xbf{"model":"m","messages":[{}]}')


def test_the_facts_of_a_body_are_read():
    exchange = parse(b'{"model":"m","messages":[{"role":"user"}],"stream":true}')
    assert (exchange.request.ask.model, exchange.request.ask.stream) == ("m", True)
    assert exchange.request.json["messages"] == [{"role": "user"}]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"", "invalid_json"),
        (b"not json", "invalid_json"),
        (b'{"model":"m","model":"n","messages":[{}]}', "invalid_json"),
        (b"[" * 17 + b"]" * 17, "invalid_json"),
        (b'"text"', "invalid_request"),
        (b"null", "invalid_request"),
        (b"[]", "invalid_request"),
        (b"{}", "invalid_request"),
        (b" " * 1001, "body_too_large"),
    ],
)
def test_an_unusable_body_is_refused(body, expected):
    assert code(parse, body) == expected


@pytest.mark.parametrize(
    ("path", "model"),
    [
        ("/openai/v1/chat/completions", ""),
        ("/openai/deployments/gpt-4o/chat/completions?api-version=2024-10-21", "gpt-4o"),
        ("/openai/deployments/team%2Fsmall/embeddings", "team/small"),
        ("/openai/responses?api-version=preview", ""),
    ],
)
def test_a_path_of_azure_openai_stands_for_one_of_openai(path, model):
    exchange = classify(path)
    assert exchange.request.endpoint.alias
    assert exchange.request.endpoint.model == model
    assert exchange.request.endpoint.pattern in exchange.request.dialect.endpoints.paths


@pytest.mark.parametrize("body", [{}, {"model": "other"}, {"model": "gpt-4o"}])
def test_the_model_of_azures_path_is_the_model_of_the_request(body):
    exchange = classify("/openai/deployments/gpt-4o/chat/completions")
    exchange.request.body = json.dumps({**body, "messages": [{"role": "user", "content": "x"}]}).encode()
    Parse(BodyLimits(1 << 20, 32))(exchange)
    assert exchange.request.ask.model == "gpt-4o"
    assert {**json.loads(exchange.request.body), **exchange.request.edits}["model"] == "gpt-4o"


# --- names below the fields of the body, in another case


HI = [{"role": "user", "content": "Hi"}]
NESTED = {
    "/v1/chat/completions": [
        {"messages": [{"Role": "system", "role": "user", "content": "Hi"}]},
        {"messages": [{"role": "user", "content": "Hi", "Content": "Ho"}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "TEXT": "Ho", "text": "Hi"}]}]},
        {"messages": HI, "stream": True, "stream_options": {"Include_Usage": False}},
        {"messages": HI, "tools": [{"type": "function", "Type": "web_search", "function": {"name": "f"}}]},
        {"messages": HI, "tools": [{"type": "function", "function": {"name": "f", "Name": "g"}}]},
        {"messages": HI, "thinking": {"type": "enabled", "Budget_Tokens": 9}},
        {"messages": HI, "extra_body": {"model": "other"}},
        {"messages": HI, "extra_body": {"Model": "other"}},
        {"messages": HI, "extra_body": {"api_base": "http://example.com"}},
        {"messages": HI, "extra_body": {"max_tokens": 9}},
    ],
    "/v1/responses": [
        {"input": [{"role": "user", "Role": "system", "content": "Hi"}]},
        {"input": [{"type": "function_call_output", "call_id": "c", "output": "x", "Output": "y"}]},
    ],
    "/v1/messages": [
        {"max_tokens": 9, "messages": [{"role": "user", "content": [{"type": "text", "text": "Hi", "Text": "Ho"}]}]},
        {"max_tokens": 9, "messages": HI, "system": [{"type": "text", "text": "S", "Type": "image"}]},
    ],
    "/v1beta/models/m:generateContent": [
        {"contents": [{"Role": "model", "role": "user", "parts": [{"text": "Hi"}]}]},
        {"contents": [{"parts": [{"text": "Hi", "Text": "Ho"}]}]},
    ],
}
FREE = {
    "/v1/chat/completions": [
        {"messages": HI, "tools": [{"function": {"name": "f", "parameters": {"properties": {"Role": {"Type": "x"}}}}}]},
        {"messages": HI, "response_format": {"type": "json_schema", "json_schema": {"schema": {"Content": {}}}}},
        {"messages": HI, "extra_body": {"google": {"thinking_config": {}}}},
        {"messages": [{"role": "user", "content": "Hi", "metadata": {"Role": "x"}}]},
    ],
    "/v1/messages": [
        {"max_tokens": 9, "messages": HI, "tools": [{"name": "f", "input_schema": {"properties": {"Text": {}}}}]},
        {
            "max_tokens": 9,
            "messages": [
                *HI,
                {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "f", "input": {"Type": 1}}]},
            ],
        },
    ],
    "/v1beta/models/m:generateContent": [
        {"contents": [{"parts": [{"functionCall": {"name": "f", "args": {"Role": 1, "Parts": 2}}}]}]},
    ],
}


def interpreted(path, body):
    exchange = classify(path)
    exchange.request.body = json.dumps({"model": "m"} | body).encode()
    Parse(BodyLimits(10_000, 32))(exchange)
    return exchange


@pytest.mark.parametrize(("path", "body"), [(path, body) for path, bodies in NESTED.items() for body in bodies])
def test_names_inside_of_fields_in_another_case_are_refused(path, body):
    with pytest.raises(Refusal, match="some servers take for") as refused:
        interpreted(path, body)
    assert refused.value.kind.code == "invalid_request"


@pytest.mark.parametrize(("path", "body"), [(path, body) for path, bodies in FREE.items() for body in bodies])
def test_names_that_are_the_clients_own_pass(path, body):
    assert interpreted(path, body).request.json == {"model": "m"} | body


@pytest.mark.parametrize(
    ("messages", "named"),
    [
        (b'[{"role":"user","content":"file_id"}]', False),
        (b'[{"role":"user","content":[{"type":"file","file":{"file_id":"file-1"}}]}]', True),
        (b'[{"role":"user","content":[{"type":"file","file":{"f\\u0069le_id":"file-1"}}]}]', True),
        (b'[{"role":"assistant","audio":{"id":"audio_1"}}]', True),
    ],
)
def test_a_body_is_searched_for_ids_only_where_a_field_can_hold_one(messages, named):
    assert parse(b'{"model":"m","messages":%b}' % messages).route.kept.named is named

import pytest

from extproc.parsing import Classify, Parse, is_model_path
from extproc.words.errors import Refusal
from extproc.words.exchange import Exchange, Request


def classify(path, method="POST", **headers):
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    exchange = Exchange("id", Request(method, path, given))
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
    ],
)
def test_the_path_says_which_api(path, dialect, operation):
    exchange = classify(path)
    assert (exchange.dialect.name, exchange.operation) == (dialect, operation)


@pytest.mark.parametrize(
    "path",
    ["", "/", "*", "/v1", "/v1/chat/completions/", "/v2/chat/completions", "/v1/models/", "/v1/chat%2fcompletions"],
)
def test_an_unknown_path_is_a_404_in_the_default_shape(path):
    exchange = Exchange("id", Request("POST", path, {}))
    assert code(Classify(), exchange) == "path_not_found"
    assert exchange.dialect.error
    assert exchange.operation == "unknown"


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(
    "path", ["/v1/models", "/v1/models/m", "/v1/models/openai/gpt-4o", "/v1/models/openai%2Fgpt-4o"]
)
def test_models_are_read(path, method):
    assert classify(path, method).operation == "list_models"


@pytest.mark.parametrize(
    ("path", "method", "allow"), [("/v1/models", "POST", "GET, HEAD"), ("/v1/embeddings", "GET", "POST")]
)
def test_another_method_is_a_405_that_says_which(path, method, allow):
    with pytest.raises(Refusal) as refused:
        classify(path, method)
    assert (refused.value.kind.status, refused.value.headers) == (405, {"allow": allow})


@pytest.mark.parametrize("name", ["m", "a/b", "a%2Fb", "a:b", "...", "a..b", "%252e%252e"])
def test_names_of_models_in_a_path(name):
    assert is_model_path(f"/v1/models/{name}")


@pytest.mark.parametrize(
    "name", ["", "/", "a/", "/a", "a//b", ".", "..", "../x", "a/../b", "%2e%2e", "a%2F..%2Fb", "a%2f"]
)
def test_what_leads_elsewhere_is_no_model(name):
    assert not is_model_path(f"/v1/models/{name}")


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
def test_what_is_no_json_in_utf8_is_a_415(kind):
    assert code(classify, "/v1/chat/completions", content_type=kind) == "unsupported_encoding"


@pytest.mark.parametrize("encoding", ["gzip", "br", "deflate", "zstd", "x", "gzip, identity"])
def test_an_encoded_body_is_a_415(encoding):
    assert code(classify, "/v1/chat/completions", content_encoding=encoding) == "unsupported_encoding"


def parse(body, **limits):
    exchange = classify("/v1/chat/completions")
    exchange.body = body
    Parse(limits.get("max_bytes", 1000), limits.get("max_depth", 16), limits.get("hosted_tools", 0))(exchange)
    return exchange


def test_the_body_says_what_it_asks_for():
    exchange = parse(b'{"model":"m","messages":[{"role":"user"}],"stream":true}')
    assert (exchange.ask.model, exchange.ask.stream) == ("m", True)
    assert exchange.json["messages"] == [{"role": "user"}]


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
def test_a_body_that_cannot_be_used(body, expected):
    assert code(parse, body) == expected

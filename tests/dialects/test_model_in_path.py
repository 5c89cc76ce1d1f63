"""A client API whose path names the model: from the path to the provider's request."""

import json
from dataclasses import replace

import pytest
import re2

from extproc.dialects import Finder, client_apis, path_regex
from extproc.envoy.envoy_config import public
from extproc.exchange.attempt import AttemptStream
from extproc.settings.limits import LimitsSettings
from extproc.upstream.providers import kinds
from extproc.words import contract
from extproc.words.actions import LocalReply
from extproc.words.dialect import Endpoint

PLAIN, STREAMED = "/v1example/models/{model}:generateContent", "/v1example/models/{model}:streamGenerateContent"
HELLO = {"contents": [{"role": "user", "parts": [{"text": "Hello"}]}]}
ONE = "models: {org/one: {provider: a, model: there/one}}"


@pytest.fixture(scope="module", autouse=True)
def _example(example_dialect):
    """The dialect that these paths lead to."""


@pytest.fixture
def spoken_there(monkeypatch):
    """Makes providers of kind `mock` serve it too."""
    monkeypatch.setitem(kinds(), "mock", replace(kinds()["mock"], dialects=("example",)))


async def ask(world, path, body=HELLO, *, settings=ONE, method="POST", attached=False):
    """The answers to Envoy at the headers and at the body."""
    stream = world(settings).stream(attached=attached)
    reply = await stream.on_request_headers({":method": method, ":path": path}, False)
    if isinstance(reply, LocalReply):
        return reply
    return await stream.on_request_body(json.dumps(body).encode())


async def attempt(onward, body=HELLO):
    """The path and the body of the first try."""
    headers = {contract.ATTEMPT_COUNT: "1", **onward.set_headers}
    stream = AttemptStream(LimitsSettings())
    await stream.on_request_headers(headers, False)
    reply = await stream.on_request_body(onward.body or json.dumps(body).encode())
    return reply.set_headers[":path"], json.loads(reply.body)


# --- paths


@pytest.mark.parametrize(
    ("path", "pattern", "model"),
    [
        ("/v1example/models/m:generateContent", PLAIN, "m"),
        ("/v1example/models/m:streamGenerateContent", STREAMED, "m"),
        ("/v1example/models/org/m:generateContent", PLAIN, "org/m"),
        ("/v1example/models/org%2Fm:generateContent", PLAIN, "org/m"),
        ("/v1example/models/m:7b:generateContent", PLAIN, "m:7b"),
        ("/v1example/models/a%20b:generateContent", PLAIN, "a b"),
    ],
)
def test_a_path_names_its_model(example_dialect, path, pattern, model):
    assert Finder([example_dialect]).find(path) == (example_dialect, Endpoint(pattern, "chat", model))
    assert re2.fullmatch(path_regex(pattern), path)  # as Envoy's route reads it


@pytest.mark.parametrize(
    "path",
    [
        "/v1example/models/:generateContent",
        "/v1example/models/m:countTokens",
        "/v1example/models/m:generateContent/",
        "/v2/models/m:generateContent",
        "/v1example/models/..:generateContent",
        "/v1example/models/a/../b:generateContent",
        "/v1example/models/a%2F..%2Fb:generateContent",
        "/v1example/models/a//b:generateContent",
        "/v1example/models/{model}:countTokens",
    ],
)
async def test_other_paths_lead_to_no_dialect(world, example_dialect, path):
    assert Finder([example_dialect]).find(path) is None
    reply = await ask(world, path)
    assert (reply.status, json.loads(reply.body)["error"]["code"]) == (404, "path_not_found")
    assert PLAIN in json.loads(reply.body)["error"]["message"]


def test_a_path_can_be_written_for_another_model():
    assert Endpoint(PLAIN, "chat", "m").path("there/one two") == "/v1example/models/there%2Fone%20two:generateContent"


async def test_other_methods_are_refused(world):
    assert (await ask(world, "/v1example/models/org/one:generateContent", method="GET")).status == 405


async def test_the_model_in_the_path_is_looked_up(world):
    reply = await ask(world, "/v1example/models/org/two:generateContent")
    assert (reply.status, json.loads(reply.body)["error"]["code"]) == (404, "model_not_found")
    assert "'org/two'" in reply.body.decode()


def test_envoy_has_routes_for_such_paths(settings):
    routes = public.listener(settings(ONE)).to_dict()
    found = json.dumps(routes)
    assert json.dumps(path_regex(PLAIN)).strip('"') in found
    assert json.dumps(path_regex(STREAMED)).strip('"') in found


# --- the provider's request


@pytest.mark.parametrize(("path", "stream"), [("generateContent", False), ("streamGenerateContent", True)])
async def test_a_provider_of_another_api_gets_a_translation(world, path, stream):
    onward = await ask(world, f"/v1example/models/org/one:{path}?key=x")
    assert onward.set_headers[contract.ATTEND] == contract.ATTEND_ALL
    assert onward.body is None  # the body names no model
    sent_to, body = await attempt(onward)
    assert sent_to == "/v1/chat/completions"
    assert (body["model"], body.get("stream", False)) == ("there/one", stream)
    assert body["messages"] == [{"role": "user", "content": "Hello"}]


@pytest.mark.usefixtures("spoken_there")
@pytest.mark.parametrize("path", ["generateContent", "streamGenerateContent"])
async def test_a_provider_of_the_same_api_gets_its_models_name_in_the_path(world, path):
    settings = "models: {org/one: {provider: a, model: same/one}}"
    onward = await ask(world, f"/v1example/models/org/one:{path}", settings=settings)
    assert await attempt(onward) == (f"/v1/models/same%2Fone:{path}", HELLO)


@pytest.mark.usefixtures("spoken_there")
async def test_in_attach_mode_the_path_leaves_with_the_models_name(world):
    settings = "models: {org/one: {provider: a, model: attached/one}}"
    onward = await ask(world, "/v1example/models/org/one:generateContent?alt=sse", settings=settings, attached=True)
    assert onward.set_headers[":path"] == "/v1example/models/attached%2Fone:generateContent"  # no query of the client's
    assert onward.body is None


async def test_a_limit_set_by_the_target_is_written_under_the_apis_name(world):
    settings = """
models: {org/one: {provider: a, model: there/one, max_output_tokens: 9}}
budgets: [{name: t, unit: tokens, limit: 100000, window: minute}]
"""
    onward = await ask(world, "/v1example/models/org/one:generateContent", settings=settings)
    assert json.loads(onward.body) == HELLO | {"maxOutputTokens": 9}
    _, body = await attempt(onward)
    assert 9 in (body.get("max_tokens"), body.get("max_completion_tokens"))


# --- Vertex AI's paths, for Google's SDKs with `vertexai=True`

ABOVE = ("projects/p-1/locations/europe-west4/publishers/google/models", "publishers/google/models")


@pytest.mark.parametrize("version", ["v1", "v1beta1"])
@pytest.mark.parametrize("above", ABOVE)
@pytest.mark.parametrize("verb", ["generateContent", "streamGenerateContent", "countTokens", "embedContent"])
def test_vertex_paths_stand_for_those_of_gemini(version, above, verb):
    path = f"/{version}/{above}/org/m:{verb}"
    dialect, found = Finder(client_apis().values()).find(path)
    assert (found.pattern, found.model, found.alias) == (f"/v1beta/models/{{model}}:{verb}", "org/m", True)
    assert any(re2.fullmatch(path_regex(pattern), path) for pattern in dialect.endpoints.aliases)


@pytest.mark.parametrize(
    "path",
    [
        "projects/a/b/locations/l/publishers/google/models/m",
        "projects//locations/l/publishers/google/models/m",
        "projects/p/locations/l/publishers/google/models/../m",
    ],
)
def test_other_paths_of_vertex_are_unknown(path):
    assert Finder(client_apis().values()).find(f"/v1beta1/{path}:generateContent") is None

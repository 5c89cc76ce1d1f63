"""Requests of Gemini's API on their way through the gateway attachment and the tries."""

import json

import pytest

from extproc.exchange.attempt import AttemptStream
from extproc.settings.limits import LimitsSettings
from extproc.words import contract
from extproc.words.actions import LocalReply

HELLO = {"contents": [{"role": "user", "parts": [{"text": "Hello"}]}]}
SETTINGS = """
providers:
  google: {kind: gcp_gemini, base_url: "https://g.test/v1beta"}
  openai: {kind: openai, base_url: "https://o.test/v1"}
  claude: {kind: anthropic, base_url: "https://a.test/v1"}
models:
  claude: {provider: claude}
  mine: {provider: google, model: gemini-2.5-flash, max_output_tokens: 9}
  gpt: {provider: openai, model: gpt-4o}
  vectors: {provider: google, model: gemini-embedding-001}
virtual_models:
  told:
    targets:
    - {model: mine, override: {generationConfig.temperature: 0, max_tokens: 5}, remove: [generationConfig.seed]}
  both: {targets: [{model: mine, default: {generationConfig.topK: 3}}, {model: gpt}]}
budgets: [{name: t, unit: tokens, limit: 100000000, window: minute}]
"""


async def leaving(world, path, body=HELLO, *, attached=False, tries=1):
    """The answer to Envoy, and the path and body of each try."""
    stream = world(SETTINGS).stream(attached=attached)
    reply = await stream.on_request_headers({":method": "POST", ":path": f"/v1beta/models/{path}"}, False)
    if isinstance(reply, LocalReply):
        return reply, []
    reply = await stream.on_request_body(json.dumps(body).encode())
    if isinstance(reply, LocalReply) or attached:
        return reply, []
    sent = []
    for number in range(1, tries + 1):
        attempt = AttemptStream(LimitsSettings())
        await attempt.on_request_headers({**reply.set_headers, contract.ATTEMPT_COUNT: str(number)}, False)
        made = await attempt.on_request_body(reply.body or json.dumps(body).encode())
        sent.append((made.set_headers[":path"], json.loads(made.body)))
    return reply, sent


async def test_a_target_changes_fields_inside_the_clients_settings(world):
    config = {"temperature": 1, "seed": 3, "topP": 0.5}
    _, [(path, body)] = await leaving(world, "told:generateContent", HELLO | {"generationConfig": config})
    assert path == "/v1/models/gemini-2.5-flash:generateContent"
    assert body == HELLO | {"generationConfig": {"temperature": 0, "topP": 0.5, "maxOutputTokens": 5}}


async def test_a_later_target_gets_the_request_without_the_changes_of_the_first(world):
    _, [(_, first), (path, second)] = await leaving(world, "both:streamGenerateContent", tries=2)
    assert first["generationConfig"] == {"topK": 3, "maxOutputTokens": 9}
    assert (path, second["stream"]) == ("/v1/chat/completions", True)
    assert "top_k" not in second


@pytest.mark.parametrize("alt", ["", "?alt=sse&other=secret", "?other=secret"])
async def test_a_stream_is_asked_for_as_events_whatever_the_client_takes(world, alt):
    reply, [(path, _)] = await leaving(world, f"mine:streamGenerateContent{alt}")
    assert path == "/v1/models/gemini-2.5-flash:streamGenerateContent?alt=sse"
    assert "secret" not in str(reply.set_headers)
    left = reply.set_headers.get(":path", "")
    assert left == (
        "" if not alt else "/v1beta/models/mine:streamGenerateContent" + alt.partition("&")[0] * ("alt" in alt)
    )


async def test_in_attach_mode_the_path_and_the_body_name_the_targets_model(world):
    reply, _ = await leaving(world, "mine:streamGenerateContent?alt=sse&other=secret", attached=True)
    assert reply.set_headers[":path"] == "/v1beta/models/gemini-2.5-flash:streamGenerateContent?alt=sse"
    one = {"model": "models/vectors", "content": {"parts": [{"text": "x"}]}}
    reply, _ = await leaving(world, "vectors:batchEmbedContents", {"requests": [one]}, attached=True)
    assert json.loads(reply.body) == {"requests": [one | {"model": "models/gemini-embedding-001"}]}


async def test_a_refusal_does_not_repeat_the_query(world):
    """It may hold the client's key."""
    one = {"content": {"parts": [{"text": "x"}]}}
    reply, _ = await leaving(world, "claude:embedContent?other=secret", one)
    assert "does not serve /v1beta/models/claude:embedContent." in reply.body.decode()
    reply, _ = await leaving(world, "mine:nothing?other=secret", one)
    assert (reply.status, b"secret" in reply.body) == (404, False)


async def test_content_that_google_keeps_stays_there(world):
    held = {"fileData": {"fileUri": "https://generativelanguage.googleapis.com/v1beta/files/x", "mimeType": "a/b"}}
    for body in ({"contents": [{"parts": [held]}]}, HELLO | {"cachedContent": "cachedContents/x"}):
        reply, _ = await leaving(world, "gpt:generateContent", body)
        assert (reply.status, b"has no state" in reply.body, b"'store'" in reply.body) == (400, True, False)
        _, [(path, sent)] = await leaving(world, "both:generateContent", body)
        assert path.startswith("/v1/models/gemini-2.5-flash:")
        assert sent["contents"] == body["contents"]


async def test_a_body_without_a_model_in_the_path_is_refused_in_its_shape(world):
    reply, _ = await leaving(world, ":generateContent")
    error = json.loads(reply.body)["error"]
    assert (error["code"], error["status"], error["details"][0]["reason"]) == (404, "NOT_FOUND", "PATH_NOT_FOUND")
    reply, _ = await leaving(world, "mine:generateContent", {"contents": []})
    error = json.loads(reply.body)["error"]
    assert (error["status"], error["details"][0]["metadata"]["field"]) == ("INVALID_ARGUMENT", "contents")

"""Guardrails over answers: plain and streamed, in every client API."""

import json

import pytest

from extproc.words.actions import LocalReply
from tests.guardrails.streams import PATHS, PROVIDER, Played, heard, request, stream

SECRET = "sk-ABCDEF123456"
KEYS = "kind: regex, longest: 20, patterns: {key: 'sk-[A-Z0-9]{12}'}"
MASK = f"{PROVIDER}guardrails: [{{name: keys, {KEYS}, on: [output], action: mask}}]"
BLOCK = f"{PROVIDER}guardrails: [{{name: keys, {KEYS}, on: [output]}}]"
each_dialect = pytest.mark.parametrize("dialect", PATHS)


def pieces(text, size):
    return [text[start : start + size] for start in range(0, len(text), size)]


# --- streams


@each_dialect
@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 100])
async def test_a_secret_split_over_events_is_masked(world, dialect, size):
    text = f"The key is {SECRET}, and that is all."
    body = stream(dialect, pieces(text, size), thoughts=pieces(f"I think of {SECRET}.", size))
    played = await Played(world(MASK), dialect).answer([body])
    assert SECRET not in played.out.decode()
    words = heard(dialect, played.out)
    if dialect == "openai_completions":
        assert words["text"] == "I think of [KEY].The key is [KEY], and that is all."
    else:
        assert words["text"] == "The key is [KEY], and that is all."
        assert words["thoughts"] == "I think of [KEY]."
    assert [verdict[2] for verdict in played.verdicts] == ["mask"]
    assert played.usage == (200, "", 5, 7, "provider")
    assert played.ended


@each_dialect
@pytest.mark.parametrize("size", [1, 3, 100])
async def test_masked_arguments_stay_json(world, dialect, size):
    if dialect == "openai_completions":
        return
    arguments = json.dumps({"a": SECRET, "b": ["x\n" + SECRET], "n": 1})
    body = stream(dialect, arguments=pieces(arguments, size))
    played = await Played(world(MASK), dialect).answer([body])
    assert SECRET not in played.out.decode()
    assert json.loads(heard(dialect, played.out)["arguments"]) == {"a": "[KEY]", "b": ["x\n[KEY]"], "n": 1}


@each_dialect
async def test_events_without_edits_leave_as_they_came(world, dialect):
    body = stream(dialect, ["Hello ", "wörld ", f"{SECRET} ", "and ", "more"], escape=False)
    played = await Played(world(MASK), dialect).answer([body])
    before, after = body.split(b"\n\n"), played.out.split(b"\n\n")
    assert len(before) == len(after)
    changed = [index for index, event in enumerate(before) if event != after[index]]
    assert all(SECRET.encode() in before[index] for index in changed)
    clean = stream(dialect, ["Hello ", "wörld"], thoughts=["so"], escape=False)
    assert (await Played(world(MASK), dialect).answer([clean])).out == clean


@each_dialect
async def test_a_block_in_the_first_window_is_a_real_400(world, dialect):
    made = world(BLOCK)
    played = await Played(made, dialect).answer([stream(dialect, ["Well: ", SECRET[:9], SECRET[9:], " and more"])])
    assert isinstance(played.head, LocalReply)
    assert played.head.status == 400
    assert b"guardrail_blocked" in played.head.body
    assert SECRET[3:9].encode() not in played.head.body
    assert played.head.headers["x-ai-guardrails"] == "keys:block"
    assert played.head.headers["x-ai-provider"] == "a"
    assert played.out == b""
    assert played.row["status"] == 400
    assert played.row["usage_source"] != "none", "what the provider wrote is charged"
    assert played.row["outcome"] == "error"
    assert made.metric("extproc_guardrail_findings_total", guardrail="keys", action="block") == 1


@each_dialect
async def test_a_later_block_ends_the_stream_with_an_error_event(world, dialect):
    long = pieces("All is well here. " * 20, 10)
    body = stream(dialect, [*long, "now ", SECRET[:9], SECRET[9:], *long])
    played = await Played(world(BLOCK), dialect).answer(pieces(body, 50))
    assert played.status == 200
    assert played.ended
    words = heard(dialect, played.out)
    assert words["text"].startswith("All is well here. " * 10)
    assert SECRET[:3] not in words["text"]
    assert "guardrail_blocked" in json.dumps(words["error"])
    assert played.row["error"] == "guardrail_blocked"
    assert played.row["usage_source"] == "estimated"


async def test_a_stream_shorter_than_the_window_leaves_at_its_end(world):
    played = Played(world(BLOCK), "openai_chat")
    body = stream("openai_chat", ["Hi"])
    played = await played.answer([body[:-10], body[-10:]])
    assert played.out == body


async def test_without_a_blocking_guardrail_nothing_waits_for_a_window(world):
    played = Played(world(MASK), "openai_chat")
    await played.ask()
    kind = {":status": "200", "content-type": "text/event-stream"}
    assert await played.stream.on_response_headers(kind, {"upstream.request_attempt_count": 1.0}, False) is None
    body = stream("openai_chat", ["This is longer than the longest match. "] * 2)
    first = body.index(b"\n\n", body.index(b"longest")) + 2
    said = await played.stream.on_response_body(body[:first], False)
    assert said.head is not None
    assert said.body.count(b"data:") == 1, "the event without text"
    second = body.index(b"\n\n", first) + 2
    said = await played.stream.on_response_body(body[first:second], False)
    assert said.body.count(b"data:") == 1, "the first text, as nothing of it can be a match"
    await played.stream.on_end()


async def test_choices_are_kept_apart(world):
    def chunk(index, text):
        choice = {"index": index, "delta": {"content": text}}
        return b"data: " + json.dumps({"choices": [choice]}, separators=(",", ":")).encode() + b"\n\n"

    body = chunk(0, SECRET[:8]) + chunk(1, SECRET[8:]) + chunk(0, "-") + chunk(1, SECRET) + b"data: [DONE]\n\n"
    played = await Played(world(MASK), "openai_chat").answer([body])
    assert played.out == body.replace(SECRET.encode(), b"[KEY]")


async def test_logprobs_of_masked_text_are_left_out(world):
    choice = {"index": 0, "delta": {"content": SECRET}, "logprobs": {"content": [{"token": SECRET}]}}
    body = b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n"
    played = await Played(world(MASK), "openai_chat").answer([body])
    assert SECRET not in played.out.decode()
    assert json.loads(played.out[6:])["choices"][0]["logprobs"] is None


async def test_events_that_are_no_json_are_read_as_text(world):
    body = b"data: oh " + SECRET.encode() + b"\n\n"
    for settings, code in ((MASK, "guardrail_blocked"), (BLOCK, "guardrail_blocked")):
        played = await Played(world(settings), "openai_chat").answer([body])
        assert code.encode() in played.head.body
    played = await Played(world(MASK), "openai_chat").answer([b"data: oh well\n\n"])
    assert played.out == b"data: oh well\n\n"


# --- plain answers

PLAIN = {
    "gemini_generate_content": lambda text: {
        "candidates": [
            {
                "content": {
                    "role": "model",
                    "parts": [
                        {"text": text, "thought": True, "thoughtSignature": "cw=="},
                        {"text": text},
                        {"functionCall": {"id": "t", "name": "f", "args": {"a": {"b": [text]}}}},
                    ],
                },
                "finishReason": "STOP",
            }
        ],
        "usageMetadata": {"promptTokenCount": 5, "candidatesTokenCount": 7, "totalTokenCount": 12},
    },
    "openai_chat": lambda text: {
        "id": "c",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12},
    },
    "openai_completions": lambda text: {
        "id": "c",
        "choices": [{"index": 0, "text": text, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12},
    },
    "openai_responses": lambda text: {
        "id": "r",
        "object": "response",
        "status": "completed",
        "instructions": "not of the model",
        "output": [
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": text}]},
            {"type": "function_call", "name": "f", "arguments": json.dumps({"a": text})},
        ],
        "usage": {"input_tokens": 5, "output_tokens": 7, "total_tokens": 12},
    },
    "anthropic_messages": lambda text: {
        "id": "m",
        "type": "message",
        "content": [
            {"type": "thinking", "thinking": text, "signature": "s"},
            {"type": "text", "text": text},
            {"type": "tool_use", "id": "t", "name": "f", "input": {"a": {"b": [text]}}},
        ],
        "stop_reason": "end_turn",
        "usage": {"input_tokens": 5, "output_tokens": 7},
    },
}


def plain(dialect, text):
    return json.dumps(PLAIN[dialect](text)).encode()


def asking(dialect):
    return {name: value for name, value in request(dialect).items() if not name.startswith("stream")}


@each_dialect
@pytest.mark.parametrize("padding", ["", " x" * 20_000])
async def test_a_plain_answer_is_masked(world, dialect, padding):
    body = plain(dialect, f"The key is {SECRET}{padding}")
    played = await Played(world(MASK), dialect, body=asking(dialect)).answer([body[:9], body[9:]], "application/json")
    assert json.loads(played.out) == json.loads(body.replace(SECRET.encode(), b"[KEY]"))
    assert played.head.set_headers["x-ai-guardrails"] == "keys:mask"
    assert "content-length" in played.head.remove_headers
    assert played.usage == (200, "", 5, 7, "provider")


@each_dialect
async def test_a_plain_answer_is_blocked_and_charged(world, dialect):
    played = await Played(world(BLOCK), dialect, body=asking(dialect)).answer(
        [plain(dialect, SECRET)], "application/json"
    )
    assert played.head.status == 400
    assert played.usage == (400, "guardrail_blocked", 5, 7, "provider")


@pytest.mark.parametrize(("action", "told"), [("annotate", "keys:annotate"), ("audit", None)])
async def test_annotate_tells_and_audit_does_not(world, action, told):
    settings = f"guardrails: [{{name: keys, {KEYS}, on: [output], action: {action}}}]"
    body = plain("openai_chat", SECRET)
    played = await Played(world(settings), "openai_chat", body=asking("openai_chat")).answer([body], "application/json")
    assert json.loads(played.out)["choices"][0]["message"]["content"] == SECRET
    assert played.head.set_headers.get("x-ai-guardrails") == told
    assert played.verdicts == [("keys", "output", action, {"key": 1})]


async def test_tool_calls_alone(world):
    settings = f"guardrails: [{{name: keys, {KEYS}, on: [tool_calls], action: mask}}]"
    body = plain("openai_responses", SECRET)
    played = await Played(world(settings), "openai_responses", body=asking("openai_responses")).answer(
        [body], "application/json"
    )
    text, call = json.loads(played.out)["output"]
    assert text["content"][0]["text"] == SECRET
    assert call["arguments"] == '{"a": "[KEY]"}'


# --- answers that nothing guards, beside settings that guard some


async def test_answers_of_other_consumers_pass(world):
    settings = f"guardrails: [{{name: keys, {KEYS}, on: [output], applies_to: {{consumers: [bob]}}}}]"
    body = stream("openai_chat", [SECRET])
    played = await Played(world(settings), "openai_chat").answer(pieces(body, 40))
    assert played.out == body
    assert played.usage == (200, "", 5, 7, "provider")


async def test_errors_of_providers_pass(world):
    played = Played(world(BLOCK), "openai_chat")
    await played.ask()
    head = {":status": "429", "content-type": "application/json"}
    action = await played.stream.on_response_headers(head, {"upstream.request_attempt_count": 1.0}, False)
    assert action.set_headers["x-ai-error-origin"] == "provider"
    said = await played.stream.on_response_body(b'{"error": {}}', True)
    assert (said.body, said.end, said.head) == (b'{"error": {}}', True, None)
    await played.stream.on_end()
    assert played.row["status"] == 429


async def test_an_answer_of_envoy_passes(world):
    played = Played(world(BLOCK), "openai_chat")
    await played.ask()
    await played.stream.on_response_headers({":status": "503"}, {"response.code_details": "no_healthy_upstream"}, False)
    said = await played.stream.on_response_body(b"{}", True)
    assert said.body == b"{}"
    await played.stream.on_end()
    assert played.row["status"] == 503


# --- reversible masks

REVERSIBLE = PROVIDER + (
    "guardrails: [{name: pii, kind: regex, patterns: {email: '[a-z]+@[a-z.]+[a-z]'}, action: mask, style: reversible}]"
)


@each_dialect
@pytest.mark.parametrize("size", [1, 2, 5, 100])
async def test_a_reversible_mask_is_taken_off_in_the_answer(world, dialect, size):
    asked = json.loads(json.dumps(request(dialect)).replace("Hello", "I am ann@x.de, write bob@y.org"))
    played = Played(world(REVERSIBLE), dialect, body=asked)
    answer = "Dear <EMAIL_2>, <EMAIL_1> says < <EMAIL_3> <EMAIL"
    arguments = json.dumps({"to": "<EMAIL_1>"})
    body = stream(dialect, pieces(answer, size), arguments=pieces(arguments, size))
    await played.answer([body])
    assert b"<EMAIL_1>, write <EMAIL_2>" in played.sent.body
    assert b"ann@" not in played.sent.body
    words = heard(dialect, played.out)
    assert words["text"].startswith("Dear bob@y.org, ann@x.de says < <EMAIL_3> <EMAIL")
    if dialect != "openai_completions":
        assert json.loads(words["arguments"]) == {"to": "ann@x.de"}


@pytest.mark.parametrize("written", ["<email_1>", "&lt;EMAIL_1&gt;", "EMAIL_1", "`EMAIL_1`", "<EMAIL_1>"])
@pytest.mark.parametrize("size", [1, 3, 100])
async def test_a_placeholder_is_taken_off_however_the_model_writes_it(world, written, size):
    asked = json.loads(json.dumps(request("openai_chat")).replace("Hello", "I am ann@x.de"))
    played = Played(world(REVERSIBLE), "openai_chat", body=asked)
    await played.answer([stream("openai_chat", pieces(f"Dear {written}, not EMAIL_12 or MY_EMAIL_1", size))])
    said = written.replace("<email_1>", "@").replace("&lt;EMAIL_1&gt;", "@").replace("<EMAIL_1>", "@")
    said = said.replace("EMAIL_1", "@").replace("@", "ann@x.de")
    assert heard("openai_chat", played.out)["text"] == f"Dear {said}, not EMAIL_12 or MY_EMAIL_1"


async def test_a_restored_text_is_escaped_where_the_answer_is_json(world):
    settings = (
        "guardrails: [{name: q, kind: regex, patterns: {name: '\"[a-z\\\\]+\"'}, action: mask, style: reversible}]"
    )
    asked = request("openai_chat") | {"messages": [{"role": "user", "content": 'it is "an\\n"'}]}
    played = Played(world(settings), "openai_chat", body=asked)
    await played.answer([stream("openai_chat", ["<NAME_1>"], arguments=['{"a": "<NAME_1>"}'])])
    words = heard("openai_chat", played.out)
    assert words["text"] == '"an\\n"'
    assert json.loads(words["arguments"]) == {"a": '"an\\n"'}


# --- signed thinking: its provider refuses it changed

SIGNING = REVERSIBLE.replace(
    "kind: vllm, base_url: 'http://127.0.0.1:8090/v1'", "kind: anthropic, api_key: env:MASK_KEY"
)
THOUGHT = {"type": "thinking", "thinking": "<EMAIL_1> knows bob@y.org", "signature": "c2lnbmVk"}


def second_turn(thought):
    said = [thought, {"type": "text", "text": "Dear ann@x.de"}]
    turns = [("user", "I am ann@x.de"), ("assistant", said), ("user", "And bob@y.org?")]
    return request("anthropic_messages") | {"messages": [{"role": role, "content": text} for role, text in turns]}


async def test_signed_thinking_comes_back_as_its_provider_wrote_it(world, monkeypatch):
    monkeypatch.setenv("MASK_KEY", "k")
    first = Played(world(SIGNING), "anthropic_messages", body=second_turn(THOUGHT))
    first.body["messages"] = first.body["messages"][:1]
    await first.answer([stream("anthropic_messages", ["Dear <EMAIL_1>"], thoughts=["<EMAIL_1>", " knows bob@y.org"])])
    assert heard("anthropic_messages", first.out)["text"] == "Dear ann@x.de"
    assert heard("anthropic_messages", first.out)["thoughts"] == THOUGHT["thinking"]

    second = Played(world(SIGNING), "anthropic_messages", body=second_turn(THOUGHT))
    sent = json.loads((await second.ask()).body)["messages"]
    await second.end()
    assert sent[1]["content"] == [THOUGHT, {"type": "text", "text": "Dear <EMAIL_1>"}]
    assert [sent[0]["content"], sent[2]["content"]] == ["I am <EMAIL_1>", "And <EMAIL_2>?"]
    assert second.verdicts == [("pii", "input", "annotate", {"email": 1}), ("pii", "input", "mask", {"email": 3})]


@pytest.mark.parametrize("settings", [SIGNING, REVERSIBLE])
async def test_no_mask_of_answers_changes_signed_thinking(world, monkeypatch, settings):
    monkeypatch.setenv("MASK_KEY", "k")
    masking = settings.replace("style: reversible", "on: [output]")
    played = Played(world(masking), "anthropic_messages", body=second_turn(THOUGHT))
    played.body["messages"] = [{"role": "user", "content": "Hello"}]
    thoughts = ["I ask b", "ob@y.org first"]
    await played.answer([stream("anthropic_messages", ["Dear c", "at@z.org"], thoughts=thoughts)])
    words = heard("anthropic_messages", played.out)
    assert words["text"] == "Dear [EMAIL]"
    own = settings == SIGNING
    assert words["thoughts"] == ("I ask bob@y.org first" if own else "I ask [EMAIL] first")
    left = [("pii", "output", "annotate", {"email": 1})] if own else []
    assert played.verdicts == [("pii", "output", "mask", {"email": 1 if own else 2}), *left]


@pytest.mark.parametrize("settings", [SIGNING, REVERSIBLE])
async def test_thinking_is_masked_where_nothing_checks_a_signature(world, monkeypatch, settings):
    monkeypatch.setenv("MASK_KEY", "k")
    thought = THOUGHT if settings == REVERSIBLE else THOUGHT | {"signature": ""}
    played = Played(world(settings), "anthropic_messages", body=second_turn(thought))
    sent = await played.ask()
    await played.end()
    assert "bob@y.org" not in sent.body.decode()


async def test_signed_thinking_is_still_a_reason_to_block(world, monkeypatch):
    monkeypatch.setenv("MASK_KEY", "k")
    settings = SIGNING.replace("action: mask, style: reversible", "action: block").replace("[a-z]+@", "bob@")
    played = Played(world(settings), "anthropic_messages", body=second_turn(THOUGHT))
    played.body["messages"].pop()
    assert (await played.ask()).status == 400
    await played.end()

"""Facts of single vendors that a translation has to say rightly."""

import json

import pytest

from extproc.dialects import client_apis, provider_apis
from extproc.dialects._models import traits_of
from extproc.upstream.providers import kinds
from extproc.words.actions import LocalReply
from extproc.words.dialect import Destination, Endpoint
from extproc.words.messages import FilePart, ToolChoice
from tests.guardrails.streams import Played

D = {**client_apis(), **provider_apis()}
HI = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
ENDPOINT = Endpoint("/v1beta/models/{model}:generateContent", "chat", "m")
GEMINI = {"contents": [{"role": "user", "parts": [{"text": "Hi"}]}]}


def written(body, to, model="m", dialect="openai_chat"):
    prompt = D[dialect].translation.decode_request(body)
    return D[to].encode_request(prompt, Destination(model))


# --- Mistral


def test_mistral_gets_the_key_of_its_prompt_cache():
    mistral = kinds()["mistral_ai"]
    body = HI | {"prompt_cache_key": "k", "user": "u"}
    assert mistral.adapt("openai_chat", "m", False, "/p", body)[1] == HI | {"prompt_cache_key": "k"}
    assert mistral.cache_keys == ("openai_chat",)


def test_mistrals_word_for_required_tools_is_read():
    assert D["openai_chat"].translation.decode_request(HI | {"tool_choice": "any"}).tool_choice == ToolChoice(
        "required"
    )


@pytest.mark.parametrize(
    ("url", "part"),
    [
        ("https://example.com/a.pdf", FilePart(url="https://example.com/a.pdf", name="a")),
        ("data:application/pdf;base64,QQ==", FilePart("QQ==", "application/pdf", name="a")),
    ],
)
def test_mistrals_documents_are_files(url, part):
    document = {"type": "document_url", "document_url": url, "document_name": "a"}
    body = {"model": "m", "messages": [{"role": "user", "content": [document]}]}
    assert D["openai_chat"].translation.decode_request(body).messages[0].parts == [part]
    ask = D["openai_chat"].read(body)
    assert ask.needs["files"] == "messages"
    assert ask.unseen == ("file",)
    assert ("url" in ask.needs) is url.startswith("https")


# --- Claude


@pytest.mark.parametrize(
    ("model", "thinks"),
    [
        ("claude-3-haiku-20240307", False),
        ("claude-3-5-sonnet-20241022", False),
        ("anthropic.claude-3-5-haiku-20241022-v1:0", False),
        ("claude-instant-1.2", False),
        ("claude-2.1", False),
        ("claude-3-7-sonnet-20250219", True),
        ("claude-sonnet-4-20250514", True),
        ("claude-haiku-4-5", True),
    ],
)
@pytest.mark.parametrize("to", ["anthropic_messages", "aws_converse"])
def test_claudes_before_3_7_are_not_asked_to_think(model, thinks, to):
    name = model if to == "anthropic_messages" else f"anthropic.{model.removeprefix('anthropic.')}"
    body, ignored = written(HI | {"reasoning_effort": "high"}, to, name)
    assert ("thinking" in json.dumps(body)) is thinks
    assert ("reasoning_effort" in ignored) is not thinks
    assert traits_of(model).manual is thinks


# --- Nova

GROUNDED = [
    {"toolUse": {"toolUseId": "t", "name": "nova_grounding", "type": "server_tool_use", "input": {}}},
    {"toolResult": {"toolUseId": "t", "type": "nova_grounding_result", "content": [], "status": "success"}},
    {"text": "Found."},
]


def test_a_tool_that_nova_runs_itself_is_no_call_of_the_client():
    body = {"output": {"message": {"role": "assistant", "content": GROUNDED}}, "stopReason": "end_turn"}
    [choice] = D["aws_converse"].decode_answer(json.dumps(body).encode()).choices
    assert ([type(part).__name__ for part in choice.parts], choice.finish) == (["TextPart"], "stop")


def test_a_tool_that_nova_runs_itself_is_no_call_in_a_stream():
    decoder = D["aws_converse"].decoder()
    events = []
    for name, data in [
        ("contentBlockStart", {"contentBlockIndex": 0, "start": {"toolUse": GROUNDED[0]["toolUse"]}}),
        ("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"toolUse": {"input": "{}"}}}),
        ("contentBlockStop", {"contentBlockIndex": 0}),
        ("contentBlockDelta", {"contentBlockIndex": 1, "delta": {"text": "Found."}}),
        ("messageStop", {"stopReason": "end_turn"}),
    ]:
        events += decoder.feed(json.dumps(data).encode(), name)
    assert [(event.kind, event.text) for event in events if hasattr(event, "kind")] == [("text", "Found.")]
    assert [event.reason for event in events if hasattr(event, "reason")] == ["stop"]


# --- errors


@pytest.mark.parametrize("dialect", [name for name in D if name in provider_apis()])
@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"upstream connect error or disconnect", "upstream connect error or disconnect"),
        (b"<html><title>502</title>", ""),
        (b'{"error": ', ""),
    ],
)
def test_errors_in_plain_text_keep_their_words(dialect, body, message):
    said = D[dialect].decode_problem(502, body).message
    assert said == message if message else said.startswith("The provider")


# --- messages that become one


@pytest.mark.parametrize("to", ["gemini_generate_content", "anthropic_messages", "aws_converse"])
def test_two_messages_of_one_turn_stand_apart(to):
    messages = [("user", "a"), ("user", "b"), ("assistant", "c"), ("assistant", "d"), ("user", "e")]
    body, _ = written({"model": "m", "messages": [{"role": role, "content": text} for role, text in messages]}, to)
    turns = body.get("contents") or body["messages"]
    texts = [[part["text"] for part in turn.get("parts") or turn["content"]] for turn in turns]
    assert texts == [["a", "\n\nb"], ["c", "\n\nd"], ["e"]]


def message(text):
    return {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": text}]}


def test_two_messages_of_one_response_stand_apart():
    body = {"id": "r", "status": "completed", "output": [message("One."), message("Two.")]}
    answer = D["openai_responses"].decode_answer(json.dumps(body).encode())
    assert D["openai_chat"].translation.encode_answer(answer)["choices"][0]["message"]["content"] == "One.\n\nTwo."


@pytest.mark.parametrize("deltas", [True, False])
def test_two_messages_of_one_streamed_response_stand_apart(deltas):
    decoder, encoder = D["openai_responses"].decoder(), D["openai_chat"].translation.encoder()
    said = []
    for index, text in enumerate(["One.", "Two."]):
        if deltas:
            pieces = (text[:2], text[2:])
            said += [{"type": "response.output_text.delta", "output_index": index, "delta": each} for each in pieces]
        said.append({"type": "response.output_item.done", "output_index": index, "item": message(text)})
    said.append({"type": "response.completed", "response": {"output": [message("One."), message("Two.")]}})
    out = b"".join(encoder.feed(event) for each in said for event in decoder.feed(json.dumps(each).encode(), ""))
    chunks = [json.loads(line[6:]) for line in out.decode().splitlines() if line.startswith("data: {")]
    texts = [choice["delta"].get("content") or "" for chunk in chunks for choice in chunk["choices"]]
    assert "".join(texts) == "One.\n\nTwo."


# --- Gemini


def signed(*parts):
    content = {"role": "model", "parts": [*parts]}
    return {"candidates": [{"content": content, "finishReason": "STOP", "index": 0}]}


def back(blocks):
    """The parts that Gemini gets back from a client of Messages."""
    turns = [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": blocks},
        {"role": "user", "content": "?"},
    ]
    body, _ = written(
        {"model": "m", "max_tokens": 9, "messages": turns}, "gemini_generate_content", dialect="anthropic_messages"
    )
    return body["contents"][1]["parts"]


@pytest.mark.parametrize(
    "parts",
    [
        [{"text": "Hello", "thoughtSignature": "U2ln"}],
        [{"text": "Hel"}, {"text": "lo"}, {"text": "", "thoughtSignature": "U2ln"}],
    ],
)
def test_geminis_signature_on_text_goes_through_a_client_of_messages_and_back(parts):
    answer = D["gemini_generate_content"].decode_answer(json.dumps(signed(*parts)).encode())
    blocks = D["anthropic_messages"].translation.encode_answer(answer)["content"]
    assert [block["type"] for block in blocks] == ["thinking", "text"], "clients take the last block for the answer"
    assert back(blocks) == [{"text": "Hello", "thoughtSignature": "U2ln"}]


def test_geminis_signature_on_a_text_in_one_event_stays_in_a_stream():
    decoder, encoder = D["gemini_generate_content"].decoder(), D["anthropic_messages"].translation.encoder()
    event = json.dumps(signed({"text": "Hello", "thoughtSignature": "U2ln"})).encode()
    out = b"".join(encoder.feed(each) for each in [*decoder.feed(event, ""), *decoder.end()])
    events = [json.loads(line[6:]) for line in out.decode().splitlines() if line.startswith("data: ")]
    starts = [each["content_block"]["type"] for each in events if each["type"] == "content_block_start"]
    assert starts == ["thinking", "text"]
    assert any(each.get("delta", {}).get("signature") == "gemini:U2ln" for each in events)


def test_gemini_takes_an_object_for_a_list_of_one():
    functions = {"functionDeclarations": {"name": "f", "parameters": {"type": "OBJECT", "properties": {"tools": {}}}}}
    body = {"contents": {"parts": {"text": "Hi"}}, "system_instruction": {"parts": {"text": "S"}}, "tools": functions}
    spelled = D["gemini_generate_content"].offers.naming.spelled(body)
    assert spelled["contents"] == [{"parts": [{"text": "Hi"}]}]
    assert spelled["systemInstruction"] == {"parts": [{"text": "S"}]}
    assert spelled["tools"][0]["functionDeclarations"][0]["parameters"]["properties"] == {"tools": {}}
    assert list(D["gemini_generate_content"].offers.tools.tooling(spelled).offered) == ["f"]
    assert "tools" in D["gemini_generate_content"].read(spelled, ENDPOINT).needs


# --- wishes for safety: no other API has them, so a target is skipped rather than the wish

MODERATED = {"model": "omni-moderation-latest", "policy": {"output": {"mode": "block"}}}
WISHES = [
    ("openai_chat", HI, {"moderation": MODERATED}),
    ("openai_chat", HI, {"moderation": {"policy": "block"}}),
    ("openai_chat", HI, {"safe_prompt": True}),
    ("openai_chat", HI, {"guardrails": [{"block_on_error": True}]}),
    ("openai_chat", HI, {"safety_mode": "STRICT"}),
    ("openai_responses", {"model": "m", "input": "Hi"}, {"moderation": MODERATED}),
    ("gemini_generate_content", GEMINI, {"safetySettings": [{"category": "C", "threshold": "BLOCK_LOW_AND_ABOVE"}]}),
    ("gemini_generate_content", GEMINI, {"modelArmorConfig": {"promptTemplateName": "t"}}),
]
NO_WISHES = [
    ("openai_chat", HI, {"moderation": {"model": "m", "policy": {"input": {"mode": "score"}}}}),
    ("openai_chat", HI, {"safe_prompt": False, "guardrails": [], "safety_mode": "NONE", "moderation": None}),
    ("gemini_generate_content", GEMINI, {"safetySettings": [{"category": "C", "threshold": "BLOCK_NONE"}]}),
    ("gemini_generate_content", GEMINI, {"safetySettings": [{"category": "C", "threshold": "OFF"}]}),
]


@pytest.mark.parametrize(("dialect", "body", "fields"), WISHES)
def test_a_wish_for_safety_is_a_need(dialect, body, fields):
    assert D[dialect].read(body | fields, ENDPOINT).needs == {"safety": next(iter(fields))}


@pytest.mark.parametrize(("dialect", "body", "fields"), NO_WISHES)
def test_a_wish_for_less_safety_is_none(dialect, body, fields):
    assert "safety" not in D[dialect].read(body | fields, ENDPOINT).needs


TARGETS = """
providers:
  chat: {kind: vllm, base_url: 'http://127.0.0.1:1/v1'}
  claude: {kind: anthropic, api_key: env:PATH}
  google: {kind: gcp_gemini, api_key: env:PATH}
models:
  chat: {provider: chat}
  claude: {provider: claude}
  gemini: {provider: google}
virtual_models:
  any: {targets: [{model: claude}, {model: gemini}, {model: chat}]}
  freed: {targets: [{model: claude, remove: [moderation]}]}
"""
BLOCKING = {"messages": [{"role": "user", "content": "Hi"}], "moderation": MODERATED}


async def test_targets_that_cannot_block_are_skipped_by_name(world):
    played = Played(world(TARGETS), "openai_chat", body=BLOCKING | {"model": "any"})
    sent = await played.ask()
    assert not isinstance(sent, LocalReply)
    exchange = played.stream._exchange
    assert [target.name for target in exchange.route.targets] == ["chat"], "it speaks the API of the wish"
    assert [skip.target.name for skip in exchange.route.skipped] == ["claude", "gemini"]
    assert "safety ('moderation')" in exchange.route.skipped[0].text
    await played.stream.on_end()


async def test_without_a_target_that_can_block_the_field_is_named(world):
    refused = await Played(world(TARGETS), "openai_chat", body=BLOCKING | {"model": "claude"}).ask()
    said = json.loads(refused.body)["error"]
    assert (refused.status, said["code"], said["param"]) == (400, "unsupported_by_targets", "moderation")


async def test_an_operator_can_remove_a_wish_for_safety(world):
    played = Played(world(TARGETS), "openai_chat", body=BLOCKING | {"model": "freed"})
    assert not isinstance(await played.ask(), LocalReply)
    await played.stream.on_end()


# --- OpenAI's Responses at other providers


@pytest.mark.parametrize(
    ("kind", "model", "speaks"),
    [
        ("deepseek", "deepseek-v4-flash", True),
        ("deepseek", "deepseek-chat", False),
        ("openrouter", "anthropic/claude-sonnet-4.6", True),
        ("aws_bedrock", "openai.gpt-5.5", True),
        ("aws_bedrock", "us.openai.gpt-5.4", True),
        ("aws_bedrock", "openai.gpt-oss-120b-1:0", False),
        ("aws_bedrock", "amazon.nova-pro-v1:0", False),
    ],
)
def test_providers_serve_responses_themselves(kind, model, speaks):
    provider = kinds()[kind]
    assert provider.speaks(model, "openai_responses") is speaks
    if kind == "aws_bedrock":
        assert (provider.preferred(model)[0] == "openai_responses") is speaks
        path, body = provider.adapt("openai_responses", model, False, "/responses", {"model": model, "input": "Hi"})
        assert (path, body) == ("/openai/v1/responses", {"model": model, "input": "Hi"})


async def test_a_responses_client_reaches_deepseek_untranslated(world):
    yaml = "providers: {a: {kind: deepseek, api_key: env:PATH}}\nmodels: {m: {provider: a, model: deepseek-v4-flash}}"
    played = Played(world(yaml), "openai_responses", body={"model": "m", "input": "Hi"})
    await played.ask()
    assert played.stream._exchange.route.translated is False
    await played.stream.on_end()


def part_of_call(**call):
    return {"candidates": [{"index": 0, "content": {"role": "model", "parts": [{"functionCall": call}]}}]}


@pytest.mark.parametrize("ended", [True, False])
def test_geminis_streamed_arguments_are_whole_for_clients_of_other_apis(ended):
    """A target may ask for them: `override: {toolConfig: …}`."""
    decoder, encoder = D["gemini_generate_content"].decoder(), D["openai_chat"].translation.encoder()
    said = [part_of_call(name="f", id="c", willContinue=True)]
    values = [("$.city", "stringValue", "New "), ("$.city", "stringValue", "Delhi"), ("$.days[0]", "numberValue", 2)]
    said += [
        part_of_call(partialArgs=[{"jsonPath": path, kind: value}], willContinue=True) for path, kind, value in values
    ]
    said += [part_of_call()] if ended else []
    said += [{"candidates": [{"index": 0, "finishReason": "STOP"}]}]
    events = [event for each in said for event in decoder.feed(json.dumps(each).encode(), "")]
    out = b"".join(encoder.feed(event) for event in [*events, *decoder.end()])
    chunks = [json.loads(line[6:]) for line in out.decode().splitlines() if line.startswith("data: {")]
    calls = [call for chunk in chunks for choice in chunk["choices"] for call in choice["delta"].get("tool_calls", ())]
    assert [call.get("id") for call in calls if call.get("id")] == ["c"]
    arguments = "".join(call["function"].get("arguments", "") for call in calls)
    assert json.loads(arguments) == {"city": "New Delhi", "days": [2]}
    assert [choice["finish_reason"] for chunk in chunks for choice in chunk["choices"]][-1] == "tool_calls"

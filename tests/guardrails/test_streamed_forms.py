"""Streamed text in forms that vendors add to their APIs: judged as one text, wherever the stream is cut."""

import json

import pytest

from extproc.dialects.gemini_generate_content.partial import steps
from extproc.words.said import Arguments
from tests.guardrails.fakes import Fake, Words
from tests.guardrails.streams import PROVIDER, Played
from tests.guardrails.test_splits import play
from tests.samples import some

SECRET = "sk-ABCDEF123456"
TEXT = f"The key is {SECRET}, and that is all of it."
LONGEST = 20


def chat(delta, finish=None):
    return {"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


def details(kind, field):
    """OpenRouter: https://openrouter.ai/docs/use-cases/reasoning-tokens."""

    def event(piece):
        detail = {"type": f"reasoning.{kind}", field: piece, "format": "anthropic-claude-v1", "index": 0}
        return chat({"role": "assistant", "content": "", "reasoning": piece, "reasoning_details": [detail]})

    return event


def thinking(piece):
    """Mistral: `ThinkChunk` of mistralai's types."""
    return chat({"content": [{"type": "thinking", "thinking": [{"type": "text", "text": piece}], "closed": False}]})


def summary(piece):
    """Databricks: a part of reasoning in the content, with a list of summaries."""
    return chat({"content": [{"type": "reasoning", "summary": [{"type": "summary_text", "text": piece}]}]})


def block(piece):
    """LiteLLM: Anthropic's blocks beside the text."""
    return chat({"content": "", "thinking_blocks": [{"type": "thinking", "thinking": piece}]})


def claude(delta):
    return {"type": "content_block_delta", "index": 0, "delta": delta}


def gemini(part):
    return {"candidates": [{"index": 0, "content": {"role": "model", "parts": [part]}}]}


FORMS = {
    "openrouter-text": ("openai_chat", details("text", "text")),
    "openrouter-summary": ("openai_chat", details("summary", "summary")),
    "mistral-thinking": ("openai_chat", thinking),
    "databricks-summary": ("openai_chat", summary),
    "litellm-blocks": ("openai_chat", block),
    "chat-unknown-string": ("openai_chat", lambda piece: chat({"muse": piece})),
    "chat-unknown-depth": ("openai_chat", lambda piece: chat({"muse": {"steps": [{"index": 3, "words": piece}]}})),
    "chat-unknown-beside": ("openai_chat", lambda piece: chat({"content": "word ", "muse": {"text": piece}})),
    "chat-choice": ("openai_chat", lambda piece: {"choices": [{"index": 0, "muse": piece}]}),
    "chat-call": (
        "openai_chat",
        lambda piece: chat({"tool_calls": [{"index": 0, "muse": piece, "function": {"draft": piece}}]}),
    ),
    "chat-no-choices": ("openai_chat", lambda piece: {"object": "muse", "delta": {"text": piece}}),
    "completions-delta": ("openai_completions", lambda piece: {"choices": [{"index": 0, "delta": {"text": piece}}]}),
    "claude-compaction": ("anthropic_messages", lambda piece: claude({"type": "compaction_delta", "content": piece})),
    "claude-unknown": ("anthropic_messages", lambda piece: claude({"type": "muse_delta", "muse": {"words": piece}})),
    "claude-event": ("anthropic_messages", lambda piece: {"type": "muse", "delta": {"words": piece}}),
    "responses-object": (
        "openai_responses",
        lambda piece: {"type": "response.muse.delta", "item_id": "i", "delta": {"words": piece}},
    ),
    "responses-name": ("openai_responses", lambda piece: {"type": "response.muse", "item_id": "i", "delta": piece}),
    "gemini-unknown": ("gemini_generate_content", lambda piece: gemini({"muse": piece})),
    "gemini-unknown-depth": ("gemini_generate_content", lambda piece: gemini({"muse": [{"words": piece}]})),
    "gemini-partial": (
        "gemini_generate_content",
        lambda piece: gemini(
            {
                "functionCall": {
                    "partialArgs": [{"jsonPath": "$.to", "stringValue": piece, "willContinue": True}],
                    "willContinue": True,
                }
            }
        ),
    ),
    "transcript": ("openai_transcriptions", lambda piece: {"type": "transcript.text.delta", "delta": piece}),
    "transcript-segment": ("openai_transcriptions", lambda piece: {"type": "muse", "delta": {"text": piece}}),
}


def sse(events):
    """The bytes of a stream of events."""
    return b"".join(b"data: %b\n\n" % json.dumps(event).encode() for event in events)


def pieces(text, size):
    return [text[at : at + size] for at in range(0, len(text), size)]


def settings(action, longest=LONGEST):
    return Fake(name="g", on=["output"], action=action, detector=Words("key", "sk-[A-Z0-9]{12}", longest))


def leaves(value):
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for each in value:
            yield from leaves(each)
    elif isinstance(value, dict):
        for name, each in value.items():
            if name not in ("type", "format", "object", "role", "jsonPath", "item_id"):
                yield from leaves(each)


def spoken(body):
    """The strings of the events in their order, as one text: no client can put together more than this."""
    lines = [line.removeprefix(b"data: ") for line in body.splitlines() if line.startswith(b"data: {")]
    return "".join(text for line in lines for text in leaves(json.loads(line)))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("size", [1, 2, 5, 9, 100])
def test_a_secret_is_masked_however_the_events_split_it(form, size):
    dialect, event = FORMS[form]
    out, _, verdicts, _ = play(dialect, [sse(event(piece) for piece in pieces(TEXT, size))], settings("mask"))
    kinds = verdicts[0][1]
    assert kinds == {"key": 2 if form in ("openrouter-text", "openrouter-summary", "chat-call") else 1}
    assert not set("BCDF123456") & set(spoken(out))


@pytest.mark.parametrize("form", FORMS)
def test_verdicts_are_the_same_wherever_the_bytes_are_cut(form):
    dialect, event = FORMS[form]
    body = sse(event(piece) for piece in pieces(TEXT, 3))
    for action in ("mask", "block"):
        whole = play(dialect, [body], settings(action))
        assert whole[2], form
        for at in some(range(1, len(body)), 40):
            assert play(dialect, [body[:at], body[at:]], settings(action))[1:3] == whole[1:3]


@pytest.mark.parametrize(
    "form",
    [
        form
        for form, (dialect, _) in FORMS.items()
        if dialect == "openai_chat" and form not in ("chat-no-choices", "chat-unknown-beside")
    ],
)
def test_text_of_another_form_does_not_wait_for_the_end_of_the_stream(form):
    """An unknown text without a secret is let go when the answer begins another text, or ends its choice."""
    dialect, event = FORMS[form]
    events = [event(piece) for piece in pieces("Some quiet words.", 3)]
    answer = chat({"content": "The answer is longer than what may wait."})
    out, *_ = play(dialect, [sse([*events, answer])], settings("mask"), first_window=0, ended=False)
    assert sse(events) in out


def test_an_unknown_text_that_begins_does_not_let_a_known_one_go():
    events = [chat({"content": TEXT[:16]}), chat({"muse": "x"}), chat({"content": TEXT[16:]}), chat({}, "stop")]
    out, *_ = play("openai_chat", [sse(events)], settings("mask"))
    assert "sk-" not in spoken(out)


def test_two_texts_that_begin_in_one_event_do_not_let_each_other_go():
    def event(piece):
        return chat({"reasoning": piece, "content": piece, "refusal": piece})

    out, *_ = play("openai_chat", [sse(event(piece) for piece in pieces(TEXT, 4))], settings("mask"))
    assert "sk-" not in spoken(out)


# --- calls whose arguments come value by value: Gemini's `partialArgs`


def call(*values, **more):
    parts = [{"jsonPath": path, kind: value, "willContinue": True} for path, kind, value in values]
    return gemini({"functionCall": {**({"partialArgs": parts} if parts else {}), **more}})


SHELL = [
    call(name="shell", id="c", willContinue=True),
    call(("$.command", "stringValue", "rm "), willContinue=True),
    call(("$.command", "stringValue", "-r"), willContinue=True),
    call(("$.command", "stringValue", "f /"), willContinue=True),
    call(("$.n", "numberValue", 7), willContinue=True),
    call(),
]
WORDS = [
    call(name="shell", willContinue=True),
    *[
        call((f"$['command'][{at}]", "stringValue", word), willContinue=True)
        for at, word in enumerate(["rm", "-rf", "/"])
    ],
    call(),
]
DEEP = [
    call(("$.options.inner[0].command", "stringValue", "rm -rf"), name="shell", willContinue=True),
    call(("$.options.inner[0].command", "stringValue", " /")),
]
CUT = SHELL[:-1]  # the stream ends without the call's end
SECOND = [call(name="look", willContinue=True), call(("$.q", "stringValue", "x"), willContinue=True), call(), *SHELL]
FINISHED = [*CUT, {"candidates": [{"index": 0, "finishReason": "STOP"}]}]
UNENDED = [*SHELL[:-1], call(name="look", willContinue=True), call()]
DENIED = "kind: tools, arguments: {shell: {command: {deny_pattern: 'rm -rf /'}}}"


@pytest.mark.parametrize("events", [SHELL, WORDS, DEEP, CUT, SECOND, FINISHED, UNENDED])
async def test_streamed_arguments_are_judged_when_they_are_whole(world, events):
    yaml = f"{PROVIDER}guardrails: [{{name: calls, {DENIED}}}]"
    body = sse(events)
    for chunks in ([body], [body[at : at + 50] for at in range(0, len(body), 50)]):
        played = await Played(world(yaml), "gemini_generate_content").answer(chunks)
        assert played.status == 400
        assert "rm" not in spoken(played.out)


async def test_streamed_arguments_that_are_allowed_pass_as_they_came(world):
    yaml = f"{PROVIDER}guardrails: [{{name: calls, {DENIED}}}]"
    events = [
        call(name="shell", willContinue=True),
        call(("$.command", "stringValue", "ls"), ("$.deep", "boolValue", True), willContinue=True),
        call(("$.x", "nullValue", "NULL_VALUE"), willContinue=True),
        call(),
        gemini({"text": "Done."}),
    ]
    body = sse(events)
    played = await Played(world(yaml), "gemini_generate_content").answer([body])
    assert (played.status, played.out) == (200, body)


@pytest.mark.parametrize(
    ("events", "blocked"), [(SHELL, True), ([call(name="shell", willContinue=True), call()], True)]
)
async def test_streamed_arguments_of_numbers_alone_or_none_are_judged(world, events, blocked):
    schema = "{type: object, required: [path]}"
    yaml = f"{PROVIDER}guardrails: [{{name: s, kind: json_schema, on: [tool_calls], schema: {schema}, tools: [shell]}}]"
    played = await Played(world(yaml), "gemini_generate_content").answer([sse(events)])
    assert (played.status == 400) is blocked


async def test_names_of_streamed_calls_are_judged(world):
    yaml = f"{PROVIDER}guardrails: [{{name: calls, kind: tools, deny: [shell]}}]"
    played = await Played(world(yaml), "gemini_generate_content").answer([sse(SHELL)])
    assert played.status == 400


@pytest.mark.parametrize(
    ("values", "tree"),
    [
        ([("$.a", "x"), ("$.a", "y"), ("$.b", 1)], {"a": "xy", "b": 1}),
        ([("$.a[0].b", "x"), ("$.a[1]", "y"), ("$.a[0].c", None)], {"a": [{"b": "x", "c": None}, "y"]}),
        ([('$["a.b"]', "x"), (r"$['it\'s']", "y")], {"a.b": "x", "it's": "y"}),
        ([("$.a[7]", "x")], {"a": [], "$.a.7": {"a": "x"}}),
        ([("$.a.b", "x"), ("$.a", "y"), ("$.a", "z")], {"a": {"b": "x"}, "$.a": {"a": "yz"}}),
        ([("$.a", "x"), ("$.a.b", "y")], {"a": "x", "$.a.b": {"b": "y"}}),
        (
            [("a", "x"), ("", "y"), (None, "z"), ("$[0]", "w"), ("$..a", "v")],
            {"a": "x", "": "yz", "$[0]": "w", "$..a": "v"},
        ),
        ([("$" + ".a" * 1000, "x")], {"$" + ".a" * 1000: "x"}),
    ],
)
def test_values_of_streamed_arguments_stand_at_their_paths(values, tree):
    arguments = Arguments()
    for path, value in values:
        arguments.put(steps(path), value)
    assert arguments.tree() == tree


async def test_streamed_arguments_longer_than_the_limit_are_withheld(world):
    yaml = f"limits: {{buffered_response: 1MiB}}\n{PROVIDER}guardrails: [{{name: calls, {DENIED}}}]"
    text = "x" * 100_000
    events = [call(name="shell", willContinue=True)]
    events += [call((f"$.a{number}", "stringValue", text), willContinue=True) for number in range(12)]
    played = await Played(world(yaml), "gemini_generate_content").answer([sse([event]) for event in events])
    assert played.status == 503

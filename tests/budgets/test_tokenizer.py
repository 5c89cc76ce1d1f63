"""Exact token counts of ordinary and hostile text. No prompt has more tokens than its bound."""

import json
import lzma
import string
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extproc.dialects import client_apis
from extproc.money.budgets import tokenizer
from tests.samples import examples

ENOUGH = 1 << 40


def bound(body, images, most):
    return tokenizer.bound(body, images, most, client_apis()["openai_chat"].fields)


@pytest.fixture(scope="module", autouse=True)
def encoding():
    tokenizer.load().join()
    return tokenizer._ranks.encoding


def count(text):
    return tokenizer.count([text])


def whole(text):
    """The count of tiktoken, which reads the text in one piece."""
    return len(tokenizer._ranks.encoding.encode_ordinary(text))


# --- counting


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("", 0),
        ("tiktoken is great!", 6),
        ("antidisestablishmentarianism", 6),
        ("2 + 2 = 4", 7),
        ("お誕生日おめでとう", 8),
        ("<|endoftext|>", 7),  # text, not the special token
        ("x" * 1000, 125),
    ],
)
def test_known_texts_have_known_counts(text, tokens):
    assert count(text) == tokens


def test_the_words_are_split_as_by_tiktoken(monkeypatch):
    import tiktoken_ext.openai_public as public

    monkeypatch.setattr(public, "load_tiktoken_bpe", lambda _url, expected_hash: {"hash": expected_hash})
    theirs = public.o200k_base()
    assert theirs["pat_str"] == tokenizer._WORDS
    assert theirs["mergeable_ranks"]["hash"] == tokenizer._SHA256


PIECES = st.sampled_from(
    [
        *(
            "word ",
            "Word's ",
            "don'T",
            "12345",
            " 7",
            "\n",
            "\r\n",
            "  ",
            "\t",
            "a\u0301",
            "ﬁ",
            "'s",
            "'",
            "é",
            "ß",
            "٣",
            "½",
        ),
        *(
            "中文",
            "中",
            "，",
            "。",
            "かな",
            "゛",
            "한글",
            "🙂",
            "👩‍👩‍👧",
            "\u200d",
            "<|endoftext|>",
            "\x00",
            "\x7f",
            "\u2028",
        ),
        *("==", "//\n", "</", '{"a": ', "\\n", "İ", "ǅ", "ʰ", "A", "Z9", "9Z", "x.", "_", "`", "@", "[", "&", "(", "/"),
    ]
)
TEXTS = st.lists(PIECES | st.text(max_size=5), max_size=60).map("".join)


@given(text=TEXTS)
def test_a_count_never_exceeds_the_bytes(text):
    assert whole(text) == count(text) <= len(text.encode())


@given(text=TEXTS, size=st.integers(1, 40))
def test_a_count_in_slices_is_never_below_the_whole(text, size):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokenizer, "_SLICE", size)
        assert whole(text) <= count(text) <= len(text.encode())


@given(text=TEXTS)
def test_no_word_crosses_a_break(text):
    breaks = [found.start() for found in tokenizer._BREAK.finditer(text)]
    parts = [text[start:end] for start, end in zip([0, *breaks], [*breaks, None], strict=True)]
    assert sum(map(whole, parts)) == whole(text)


HOSTILE = {
    "spaces": " " * 1_000_000,
    "letters": "a" * 1_000_000,
    "line breaks": "\n" * 1_000_000,
    "marks": "!" * 1_000_000,
    "accents": "a" + "\u0301" * 300_000,
    "no breaks": "中文" * 150_000,
    "nearly spaces": (" " * 31_000 + "x") * 32,
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_a_megabyte_of_hostile_text_is_counted(text):
    assert 0 < count(text) <= len(text.encode())


def test_long_ordinary_text_is_counted_exactly():
    prose = "It's 10 o'clock,\nand all is well. " * 3000
    assert count(prose) == whole(prose)
    data = json.dumps([{"id": number, "name": f"item {number}"} for number in range(5000)])
    assert count(data) == sum(whole(part) for part in tokenizer._BREAK.sub("\0\0", data).split("\0\0"))


def test_without_loaded_ranks_there_is_no_count(monkeypatch):
    monkeypatch.setattr(tokenizer, "_ranks", tokenizer._Ranks())
    assert count("x") is None
    assert bound({"input": "x"}, (), ENOUGH) is None
    tokenizer.load().join()
    assert tokenizer.load() is tokenizer.load()
    assert count("x") == 1


@pytest.fixture
def unread(monkeypatch):
    monkeypatch.setattr(tokenizer, "_ranks", tokenizer._Ranks())


@pytest.mark.usefixtures("unread")
def test_without_tiktoken_there_is_no_count(monkeypatch):
    monkeypatch.setitem(sys.modules, "tiktoken", None)
    tokenizer.load().join()
    assert count("x") is None


@pytest.mark.usefixtures("unread")
def test_ranks_with_a_wrong_digest_are_rejected(monkeypatch, caplog):
    monkeypatch.setattr(tokenizer.lzma, "decompress", lambda _data: b"QQ== 0\n")
    tokenizer.load().join()
    assert count("x") is None
    assert "not OpenAI's" in caplog.text
    monkeypatch.undo()


@pytest.mark.usefixtures("unread")
def test_damaged_ranks_are_rejected(monkeypatch, caplog):
    def broken(_data):
        raise lzma.LZMAError

    monkeypatch.setattr(tokenizer.lzma, "decompress", broken)
    tokenizer.load().join()
    assert count("x") is None
    assert "cannot be read" in caplog.text
    monkeypatch.undo()


@pytest.mark.parametrize(
    ("kind", "model", "fits"),
    [
        ("openai", "gpt-4o", True),
        ("openai", "gpt-4o-mini-2024-07-18", True),
        ("openai", "gpt-5.4-mini", True),
        ("openai", "o1", True),
        ("openai", "ft:gpt-4o-2024-08-06:acme::x", True),
        ("openai", "gpt-4", False),
        ("openai", "gpt-4-turbo", False),
        ("openai", "gpt-3.5-turbo", False),
        ("openai", "o11", False),
        ("openai", "gpt-50", False),
        ("openai", "my-gpt-4o", False),
        ("openai", "", False),
        ("azure_openai", "gpt-4o", False),  # the name of a deployment
        ("vllm", "gpt-4o", False),
    ],
)
def test_it_fits_models_of_openai_only(kind, model, fits):
    assert tokenizer.fits(kind, model) is fits


# --- bounds of prompts


def cookbook(body):
    """Tokens of a chat as OpenAI's cookbook counts them: three for a message, one for a name, three for the answer."""
    total = 3
    for message in body["messages"]:
        total += 3 + whole(message["role"])
        content = message.get("content") or ""
        total += sum(whole(part["text"]) for part in content) if isinstance(content, list) else whole(content)
        if "name" in message:
            total += 1 + whole(message["name"])
        for call in message.get("tool_calls", ()):
            total += whole(f" to=functions.{call['function']['name']} json") + 4 + whole(call["function"]["arguments"])
    return total


def typescript(schema, indent=""):
    """The longest form of a schema in the TypeScript notation of OpenAI's models, as `harmony` writes it."""
    kind = schema.get("type")
    if "anyOf" in schema:
        return "".join(f"\n{indent} | {typescript(each, indent + '   ')}" for each in schema["anyOf"])
    if kind == "object":
        lines = ["{"]
        for name, value in schema.get("properties", {}).items():
            lines += [f"{indent}// {line}" for line in value.get("description", "").split("\n")]
            default = f" // default: {json.dumps(value['default'], ensure_ascii=False)}" if "default" in value else ""
            optional = "" if name in schema.get("required", ()) else "?"
            lines.append(f"{indent}{name}{optional}: {typescript(value, indent + '    ')},{default}")
        return "\n".join([*lines, indent + "}"])
    if kind == "array":
        return typescript(schema.get("items", {}), indent) + "[]"
    if "enum" in schema:
        return " | ".join(json.dumps(value, ensure_ascii=False) for value in schema["enum"])
    return {"string": "string", "integer": "number", "number": "number", "boolean": "boolean"}.get(kind, "any")


def tools(body):
    said = ["# Tools\n\n## functions\n\nnamespace functions {\n"]
    for tool in body.get("tools", ()):
        function = tool["function"]
        said += [f"// {line}" for line in function.get("description", "").split("\n")]
        said.append(f"type {function['name']} = (_: {typescript(function.get('parameters', {}))}) => any;\n")
    return whole("\n".join([*said, "} // namespace functions"])) + 8 if len(said) > 1 else 0


def answer_format(body):
    wanted = body.get("response_format", {}).get("json_schema")
    if not wanted:
        return 0
    return whole(f"# Response Formats\n\n## {wanted['name']}\n\n{json.dumps(wanted['schema'], ensure_ascii=False)}") + 8


WORDS = TEXTS | st.text(string.printable, max_size=40) | st.text(max_size=20)
NAMES = st.text(string.ascii_letters + string.digits + "_-", min_size=1, max_size=12)
LEAVES = st.builds(
    lambda kind, description, more: {"type": kind, **description, **more},
    st.sampled_from(["string", "integer", "number", "boolean"]),
    st.just({}) | WORDS.map(lambda text: {"description": text}),
    st.just({})
    | st.lists(WORDS, min_size=1, max_size=4).map(lambda values: {"type": "string", "enum": values})
    | WORDS.map(lambda value: {"default": value})
    | st.integers(-(10**20), 10**20).map(lambda value: {"default": value}),
)
SCHEMAS = st.recursive(
    LEAVES,
    lambda inner: (
        st.dictionaries(NAMES, inner, max_size=4).map(lambda given: {"type": "object", "properties": given})
        | inner.map(lambda items: {"type": "array", "items": items})
        | st.lists(inner, min_size=1, max_size=3).map(lambda choices: {"anyOf": choices})
    ),
    max_leaves=6,
)
PARAMETERS = st.dictionaries(NAMES, SCHEMAS, max_size=4).map(
    lambda given: {"type": "object", "properties": given, "required": list(given)[:1]}
)
TOOLS = st.builds(
    lambda name, description, parameters: {
        "type": "function",
        "function": {"name": name, "description": description, "parameters": parameters},
    },
    NAMES,
    WORDS,
    PARAMETERS,
)
CALLS = st.builds(
    lambda name, arguments: {"id": "c", "type": "function", "function": {"name": name, "arguments": arguments}},
    NAMES,
    WORDS,
)
MESSAGES = (
    st.builds(
        lambda role, content: {"role": role, "content": content},
        st.sampled_from(["system", "user", "assistant"]),
        WORDS,
    )
    | st.builds(lambda name, content: {"role": "user", "name": name, "content": content}, NAMES, WORDS)
    | st.lists(WORDS, max_size=4).map(
        lambda texts: {"role": "user", "content": [{"type": "text", "text": text} for text in texts]}
    )
    | st.lists(CALLS, min_size=1, max_size=3).map(lambda calls: {"role": "assistant", "tool_calls": calls})
    | WORDS.map(lambda text: {"role": "tool", "tool_call_id": "c", "content": text})
)
CHATS = st.builds(
    lambda messages, tools, wanted: {"model": "gpt-4o", "messages": messages, **tools, **wanted},
    st.lists(MESSAGES, min_size=1, max_size=6),
    st.just({}) | st.lists(TOOLS, min_size=1, max_size=3).map(lambda given: {"tools": given}),
    st.just({})
    | PARAMETERS.map(
        lambda schema: {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}}
    ),
)


@settings(max_examples=examples(200))
@given(body=CHATS)
def test_no_chat_exceeds_its_bound(body):
    assert cookbook(body) + tools(body) + answer_format(body) <= bound(body, (), ENOUGH)


def test_a_bound_is_close_to_the_true_count():
    turn = [
        {"role": "user", "content": "Say it in other words. " * 20},
        {"role": "assistant", "content": "I do. " * 60},
    ]
    body = {"model": "gpt-4o", "messages": turn * 10}
    assert cookbook(body) <= bound(body, (), ENOUGH) <= 1.15 * cookbook(body)
    assert bound(body, (), ENOUGH) * 2.5 < len(json.dumps(body))


@given(body=CHATS, most=st.integers(0, 200))
def test_a_shorter_reading_gives_a_larger_bound(body, most):
    assert bound(body, (), most) >= bound(body, (), ENOUGH)


def test_the_count_of_the_json_text_would_be_too_low():
    text = "\x08t \rb,]" * 20
    assert count(text) == 140
    assert count(json.dumps(text)) == 101
    assert bound({"messages": [{"role": "user", "content": text}]}, (), ENOUGH) > 140


def test_images_are_not_counted_as_text():
    url = "data:image/png;base64," + "A" * 10_000
    body = {"model": "m", "messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}]}
    ask = client_apis()["openai_chat"].read(body)
    assert bound(body, ask.image_data, ENOUGH) < 100
    body["messages"].append({"role": "user", "content": "" + url[:4] + url[4:]})  # the same text outside an image
    assert bound(body, ask.image_data, ENOUGH) > 1000


def test_encoded_data_in_text_is_counted_by_bytes():
    hidden = "QUFB" * 1000  # base64 of other data
    assert count(hidden) < 3000
    part = {"type": "file", "file": {"file_data": hidden}}
    assert bound({"messages": [{"role": "user", "content": [part]}]}, (), ENOUGH) > 4000


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)


@given(body=st.dictionaries(st.text(max_size=8), JSON, max_size=5))
def test_any_json_has_a_bound(body):
    assert bound(body, (), ENOUGH) > 0

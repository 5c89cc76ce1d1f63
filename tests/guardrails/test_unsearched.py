"""Text in other encodings, split over messages, or in files: searched where it can be, and said where it cannot."""

import gzip
import io
import json
import time
import zipfile
from base64 import b64encode, urlsafe_b64encode

import pytest

from extproc.guardrails._files import text_of
from extproc.words.actions import LocalReply
from tests.guardrails.streams import PATHS, PROVIDER, Played

SECRET = "sk-ABCDEF123456"
KEYS = "kind: regex, longest: 20, patterns: {key: 'sk-[A-Z0-9]{12}'}"
TEXT = f"The key is {SECRET}, and – that is – all of it."


def settings(more="", action="block"):
    return f"{PROVIDER}guardrails: [{{name: keys, {KEYS}, action: {action}{more}}}]"


def chat(*contents, roles=None):
    roles = roles or ["user"] * len(contents)
    return {
        "model": "m",
        "messages": [{"role": role, "content": text} for role, text in zip(roles, contents, strict=True)],
    }


def file(data):
    return chat([{"type": "text", "text": "Read"}, {"type": "file", "file": {"filename": "a.txt", "file_data": data}}])


async def sent(world, yaml, body, dialect="openai_chat"):
    """The refusal's status and message, or the body that is sent; and the header of an answer."""
    played = Played(world(yaml), dialect, body=body)
    reply = await played.ask()
    if isinstance(reply, LocalReply):
        return reply.status, json.loads(reply.body), reply.headers
    await played.stream.on_end()
    return 200, json.loads(reply.body or json.dumps(body)), played.world


# --- files


def packed(data):
    return b64encode(data).decode()


def docx():
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("word/document.xml", f"<w:t>{TEXT}</w:t>")
    return out.getvalue()


READ = {
    "utf-8": packed(TEXT.encode()),
    "utf-8 with a mark": packed(TEXT.encode("utf-8-sig")),
    "utf-16 with a mark": packed(TEXT.encode("utf-16")),
    "utf-16-le": packed(TEXT.encode("utf-16-le")),
    "utf-16-be": packed(TEXT.encode("utf-16-be")),
    "utf-32": packed(TEXT.encode("utf-32")),
    "utf-32-le": packed(TEXT.encode("utf-32-le")),
    "windows": packed(TEXT.encode("cp1252")),
    "a data URL": "data:text/plain;base64," + packed(TEXT.encode("utf-16")),
    "without padding": packed((TEXT + "  ").encode()).rstrip("="),
    "of URLs": urlsafe_b64encode((TEXT + "?>?>").encode()).decode(),
    "percent-encoded": "data:text/plain," + "".join(f"%{byte:02x}" for byte in TEXT.encode()),
    "percent-encoded base64": "data:text/plain;base64," + packed(TEXT.encode()).replace("a", "%61"),
}
MISSED = {
    "gzip": gzip.compress(TEXT.encode()),
    "docx": docx(),
    "pdf": b"%PDF-1.7\n%\xe2\xe3\x00\x01 binary",
    "random": bytes(range(256)),
}


@pytest.mark.parametrize("kind", READ)
async def test_text_files_in_every_usual_encoding_are_searched(world, kind):
    assert SECRET in text_of(READ[kind])
    status, answer, _ = await sent(world, settings(), file(READ[kind]))
    assert status == 400
    assert answer["error"]["code"] == "guardrail_blocked"


@pytest.mark.parametrize("kind", MISSED)
async def test_a_file_that_cannot_be_searched_is_said(world, kind):
    assert text_of(packed(MISSED[kind])) is None
    body = file("data:application/octet-stream;base64," + packed(MISSED[kind]))
    status, _, gateway = await sent(world, settings(), body)
    assert status == 200
    [verdict] = gateway.verdicts
    assert (verdict["guardrail"], verdict["action"], verdict["findings"]) == ("keys", "unsearched", {"file": 1})


UNSEARCHED = {
    "a file": file("data:application/octet-stream;base64," + packed(MISSED["docx"])),
    "an id": chat([{"type": "file", "file": {"file_id": "file-1"}}]),
    "an image": chat([{"type": "image_url", "image_url": {"url": "data:image/png;base64,QQ=="}}]),
    "an address": chat([{"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}]),
    "sound": chat([{"type": "input_audio", "input_audio": {"data": "QQ==", "format": "wav"}}]),
}


@pytest.mark.parametrize("kind", UNSEARCHED)
async def test_a_guardrail_may_refuse_what_it_cannot_search(world, kind):
    status, answer, headers = await sent(world, settings(", unsearched: refuse"), UNSEARCHED[kind])
    assert status == 400
    assert "cannot search" in answer["error"]["message"]
    assert headers["x-ai-guardrails"] == "keys:block"


async def test_the_answer_says_that_a_part_was_not_searched(world):
    played = Played(world(settings()), "openai_chat", body=UNSEARCHED["an image"] | {"stream": False})
    answer = {"choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}]}
    await played.answer([json.dumps(answer).encode()], kind="application/json")
    assert played.head.set_headers["x-ai-guardrails"] == "keys:unsearched"


@pytest.mark.parametrize("action", ["audit", "annotate"])
async def test_guardrails_that_only_look_say_nothing_of_files(world, action):
    _, _, gateway = await sent(world, settings(", unsearched: refuse", action), UNSEARCHED["an image"])
    assert not gateway.verdicts


# --- percent-encoded text


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("sk-%41BCDEF123456", "[KEY]"),
        ("%73k%2dABCDEF123456", "[KEY]"),
        ("see sk%2DABCDEF12345%36.", "see [KEY]."),
    ],
)
async def test_percent_encoded_text_is_searched_and_masked(world, text, masked):
    assert (await sent(world, settings(), chat(text)))[0] == 400
    _, body, _ = await sent(world, settings(action="mask"), chat(f"é {text} %C3%A9 é"))
    assert body["messages"][0]["content"] == f"é {masked} %C3%A9 é"


async def test_a_finding_in_text_with_escapes_elsewhere_counts_once(world):
    _, body, gateway = await sent(world, settings(action="mask"), chat(f"a%20b {SECRET} c%20d"))
    assert body["messages"][0]["content"] == "a%20b [KEY] c%20d"
    assert [verdict["findings"] for verdict in gateway.verdicts] == [{"key": 1}]


# --- a text that is split over messages


@pytest.mark.parametrize("at", range(1, len(SECRET)))
async def test_a_word_split_over_two_messages_is_found(world, at):
    parts = (f"my key: {SECRET[:at]}", f"{SECRET[at:]}, fine")
    for body in (chat(*parts), chat(parts[0], "Go on.", parts[1], roles=["user", "assistant", "user"])):
        assert (await sent(world, settings(), body))[0] == 400
    _, body, _ = await sent(world, settings(action="mask"), chat(*parts))
    assert [message["content"] for message in body["messages"]] == ["my key: [KEY]", "[KEY], fine"]


@pytest.mark.parametrize("sizes", [(3, 3, 20), (1, 1, 1, 20), (3, 1, 3, 1, 20), (1,) * 14 + (20,)])
@pytest.mark.parametrize("between", [False, True])
async def test_a_word_split_over_many_messages_is_found(world, sizes, between):
    """A message in front that ends in a letter hides no word of up to four messages."""
    parts, at = [], 0
    for size in sizes:
        parts.append(SECRET[at : at + size])
        at += size
    pattern = KEYS.replace("'sk-[A-Z0-9]{12}'", "'\\bsk-[A-Z0-9]{12}\\b'") if len(sizes) <= 4 else KEYS
    yaml = f"{PROVIDER}guardrails: [{{name: keys, {pattern}, action: ACTION}}]"
    before = ["Hello"] if len(sizes) <= 4 else ["x" * 100]
    texts = [*before, *parts, *(["y" * 100] if len(sizes) > 4 else [])]
    said, roles = texts, ["user"] * len(texts)
    if between:
        said = [text for each in texts for text in (each, "Go on.")]
        roles = ["user", "assistant"] * len(texts)
    assert (await sent(world, yaml.replace("ACTION", "block"), chat(*said, roles=roles)))[0] == 400
    _, body, _ = await sent(world, yaml.replace("ACTION", "mask"), chat(*said, roles=roles))
    shown = [each["content"] for each in body["messages"] if each["role"] == "user"]
    assert shown == [*before, *["[KEY]"] * len(parts), *(["y" * 100] if len(sizes) > 4 else [])]


async def test_many_short_messages_are_searched_in_linear_time(world):
    """A request of 1 MiB in messages of one letter: a few searches for each of them."""
    body = chat(*["a"] * 20_000)
    begun = time.monotonic()
    assert (await sent(world, settings(", timeout: 9s"), body))[0] == 200
    assert time.monotonic() - begun < 10


SPLIT = {
    "openai_responses": {
        "model": "m",
        "input": [{"role": "user", "content": "sk-ABC"}, {"role": "user", "content": "DEF123456"}],
    },
    "anthropic_messages": {
        "model": "m",
        "max_tokens": 9,
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "sk-ABC"}]},
            {"role": "user", "content": [{"type": "text", "text": "DEF123456"}]},
        ],
    },
    "gemini_generate_content": {
        "contents": [
            {"role": "user", "parts": [{"text": "sk-ABC"}]},
            {"role": "user", "parts": [{"text": "DEF123456"}]},
        ]
    },
}


@pytest.mark.parametrize("dialect", SPLIT)
async def test_a_word_split_over_two_messages_is_found_in_every_api(world, dialect):
    assert PATHS[dialect]
    assert (await sent(world, settings(), SPLIT[dialect], dialect))[0] == 400


async def test_neighbours_of_a_finding_are_left_alone(world):
    """Text that a message shows by itself is not looked for beyond it: the words before are none of it."""
    mails = "kind: regex, longest: 40, patterns: {mail: '[a-z.]+@[a-z.]+[a-z]'}"
    yaml = f"{PROVIDER}guardrails: [{{name: mails, {mails}, action: mask}}]"
    _, body, _ = await sent(world, yaml, chat("write to our office", "ann@example.org please"))
    assert [message["content"] for message in body["messages"]] == ["write to our office", "[MAIL] please"]


async def test_texts_of_different_roles_do_not_belong_together(world):
    body = chat("sk-ABC", "DEF123456", roles=["user", "assistant"])
    assert (await sent(world, settings(), body))[0] == 200

"""The facts that a client dialect reads from a request, in the shape of every API: no fact may be missing.

`full_requests/` has the same two requests in each API. `full`: a system prompt, a user's text with an image, a tool
call and its result, returned thinking, a tool, a schema for the answer, an effort, an output limit, streamed. `named`:
an image and a file given by reference. APIs of other families have as much of it as they can express. A new dialect
adds its file.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from extproc.dialects import Finder, client_apis
from extproc.exchange.parsing import Inside
from extproc.words import contract
from extproc.words.api import ClientAPI
from extproc.words.dialect import Ask, Conversation, Endpoint, Text
from extproc.words.errors import Refusal

FOLDER = Path(__file__).parent / "full_requests"
SPOKEN = [
    *(name for name, dialect in client_apis().items() if dialect.family != "kept"),
    "example",
]

SYSTEM, ASKED, RESULT, DEFINED = "Be brief.", "Look at this.", "Rain, 7 degrees.", "Finds the weather."
SIGNATURE = "c2lnbmVkIGJ5IGl0cyBwcm92aWRlcg=="
LIMIT = 77


@pytest.fixture(scope="module", autouse=True)
def _example(example_dialect):
    """A dialect whose path names the model."""


@dataclass
class Reading:
    """The facts that a dialect reads from a request."""

    dialect: ClientAPI
    body: dict
    endpoint: Endpoint
    ask: Ask
    said: Conversation
    texts: list[Text]

    def place(self, value):
        """The top-level field that holds a string."""
        [place] = [key for key, held in self.body.items() if value in json.dumps(held)]
        return place

    def role(self, value):
        [role] = [text.role for text in self.texts if text.value == value]
        return role


def requests(name):
    return json.loads((FOLDER / f"{name}.json").read_bytes())


def read(dialect, which="full"):
    request = requests(dialect.name)[which]
    body = request["body"]
    _, endpoint = Finder([dialect]).find(request["path"])
    ask = dialect.read(body, endpoint)
    return Reading(dialect, body, endpoint, ask, dialect.conversation(body), list(dialect.texts(body)))


def limit_of(reading):
    """The value of the field that limits the output, which may be a part of another."""
    holder, key = contract.place(reading.body, reading.ask.output_field or "")
    return holder.get(key)


def encoded(reading):
    """Fields that hold base64 which is no data URL."""
    held = (text for text in reading.texts if len(text.value) > 40 and " " not in text.value)
    return {text.key for text in held if not text.value.startswith("data:")}


CHAT = {
    "the model": lambda found: found.ask.model == "m",
    "where the model stands": lambda found: (
        found.body.get(found.dialect.fields.model) == "m" if found.dialect.fields.model else "m" in found.endpoint.model
    ),
    "whether it is streamed": lambda found: found.ask.stream,
    "the limit of the output": lambda found: found.ask.max_output_tokens == LIMIT,
    "the field that limits the output": lambda found: limit_of(found) == LIMIT,
    "the names of that field": lambda found: found.ask.output_field in found.dialect.fields.output_limits,
    "the effort": lambda found: found.said.effort == "high",
    "tokens of thinking": lambda found: found.ask.thinking >= 8192,
    "thinking, of a changed body": lambda found: found.dialect.offers.thinking(found.body) == found.ask.thinking,
    "how many images": lambda found: found.ask.images == 1,
    "tokens of images": lambda found: found.ask.image_tokens == 1601,
    "bytes of images": lambda found: found.ask.image_bytes == sum(map(len, found.ask.image_data)) > 0,
    "the strings that are images": lambda found: len(found.ask.image_data) == 1,
    "what it needs": lambda found: {"tools", "images", "json_schema"} <= set(found.ask.needs),
    "the fields that need it": lambda found: all(
        field in found.body and field in found.dialect.fields.needs.get(need, ())
        for need, field in found.ask.needs.items()
    ),
    "tokens that providers add": lambda found: found.ask.added_tokens >= 1024,
    "fields that must stay as they are": lambda found: (
        {found.place(ASKED), *filter(None, [found.dialect.fields.model])} <= set(found.dialect.fields.fixed)
    ),
    "the fields of the dialogue": lambda found: (
        {found.place(SYSTEM), found.place(ASKED)} <= found.dialect.fields.spoken
        and found.place(DEFINED) not in found.dialect.fields.spoken
    ),
    "the fields of files": lambda found: encoded(found) <= found.dialect.fields.files != frozenset(),
    "what is no text": lambda found: (
        encoded(found) | {text.key for text in found.texts if text.value == SIGNATURE} <= found.dialect.fields.opaque
    ),
    "the user's text": lambda found: found.said.asked == [ASKED],
    "the result of a tool": lambda found: found.said.result == [RESULT],
    "the system prompt": lambda found: found.said.system == [SYSTEM],
    "how many turns": lambda found: found.said.turns >= 3,
    "how many tools": lambda found: found.said.tools == 1,
    "that the answer has a shape": lambda found: found.said.shaped,
    "who says what": lambda found: (
        (found.role(SYSTEM), found.role(ASKED), found.role(RESULT), found.role(DEFINED))
        == ("system", "user", "tool", "definition")
    ),
}
"""For a dialect of the family `chat`."""

NAMED = {
    "input that the body only names": lambda found: len(found.ask.unseen) == 2,
    "what of it can be any size": lambda found: len(found.ask.unbounded) == 1,
    "that it may be an image": lambda found: (found.ask.images, found.ask.image_tokens) == (1, 39_200),
    "the ability to read it": lambda found: {"images", "files"} <= set(found.ask.needs),
}

# Facts that an API without answers, or without a dialogue, cannot express.
_LIMITS = ("the limit of the output", "the field that limits the output", "the names of that field")
_THINKING = ("tokens of thinking", "thinking, of a changed body")
FACTS = {
    "chat": (CHAT, NAMED),
    "compaction": (CHAT, NAMED),
    "count_tokens": (
        {name: fact for name, fact in CHAT.items() if name not in (*_LIMITS, *_THINKING, "whether it is streamed")},
        NAMED,
    ),
    "completions": (
        {name: CHAT[name] for name in ("the model", "whether it is streamed", *_LIMITS, "the user's text")},
        {},
    ),
    **dict.fromkeys(
        ("embeddings", "passed"),
        ({name: CHAT[name] for name in ("the model", "where the model stands", "the user's text")}, {}),
    ),
}


def left_out(dialect):
    """The facts that a dialect does not report."""
    for facts, which in zip(FACTS[dialect.family], ("full", "named"), strict=True):
        if facts:
            found = read(dialect, which)
            yield from (name for name, fact in facts.items() if not fact(found))
    if dialect.name in TALKS:
        yield from misread(dialect)


TALKS = ("openai_chat", "openai_responses", "anthropic_messages", "gemini_generate_content", "example")


def misread(dialect):
    """Fields of messages that may come twice, in two cases; and names of the client's own that are taken for them."""
    body, inside = requests(dialect.name)["full"]["body"], Inside(dialect.fields)
    place = next((name for name in dialect.fields.spoken if isinstance(body.get(name), list)), None)
    for name in body[place][0] if place else ():
        try:
            inside.check({place: [body[place][0] | {name.upper(): "x"}]})
        except Refusal:
            continue
        yield f"messages.{name}"
    try:
        inside.check(json.loads(json.dumps(body).replace('"city"', '"Text"')))
    except Refusal:
        yield "names of the client's own"


@pytest.mark.parametrize("name", SPOKEN)
def test_a_dialect_reports_every_fact(name):
    assert (FOLDER / f"{name}.json").exists(), f"the two requests in this API: {FOLDER.name}/{name}.json"
    assert list(left_out(client_apis()[name])) == []


@pytest.mark.parametrize(
    "name", [name for name in SPOKEN if name in client_apis() and client_apis()[name].translation is not None]
)
def test_the_request_is_the_same_in_every_api(name):
    """Translations read the same prompt from all of them, so no dialect is tested with a request of its own."""
    if client_apis()[name].family != "chat":
        return
    prompt = client_apis()[name].translation.decode_request(requests(name)["full"]["body"])
    assert [part.text for part in prompt.system] == [SYSTEM]
    assert prompt.messages[0].parts[0].text == ASKED
    assert prompt.messages[-1].parts[-1].parts[0].text == RESULT
    assert [(tool.name, tool.description) for tool in prompt.tools] == [("look_up", DEFINED)]
    assert prompt.format.schema["required"] == ["weather"]
    assert (prompt.max_tokens, prompt.effort) == (LIMIT, "high")

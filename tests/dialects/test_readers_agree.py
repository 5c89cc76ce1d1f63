"""The three readers of an answer agree: usage and length (`observe`), guardrails (`said`), and translations.

A field that one of them reads and another forgets would be text that is not paid for, or that guardrails do not see.
"""

import json
from collections import defaultdict
from pathlib import Path

import pytest

from extproc.dialects import client_apis, provider_apis
from extproc.wire.framing.sse import SSE
from extproc.words.dialect import Report
from extproc.words.messages import Delta, RefusalPart, TextPart, ThinkingPart, ToolCall
from tests.dialects.test_contract import all_strings

GOLDEN = Path(__file__).parent.parent / "golden" / "answers"
NAMES = sorted(name for name in client_apis() if name in provider_apis() and client_apis()[name].family == "chat")
ANSWERS = [
    (name, path.name)
    for name in NAMES
    for path in sorted((GOLDEN / name).iterdir())
    if path.is_file() and not path.name.startswith(("error_", "streaming_cut"))
]


EXPLAINED = ("anthropic_messages", "refusal.json")  # Anthropic's explanation, which is not paid for


def events_of(path):
    """The payloads of an answer, without blanks in their JSON."""
    data, framing = path.read_bytes(), SSE()
    found = [data] if path.suffix == ".json" else [event.data for event in [*framing.feed(data), *framing.end()]]
    return [
        json.dumps(json.loads(each), separators=(",", ":")).encode() for each in found if each not in (None, b"[DONE]")
    ]


def translated(api, path, events):
    """The texts of an answer for a translation: words, and names and arguments of calls."""
    if path.suffix == ".json":
        for choice in api.decode_answer(events[0]).choices:
            for part in choice.parts:
                if isinstance(part, ToolCall):
                    yield from (part.name, part.arguments)
                elif isinstance(part, TextPart | ThinkingPart | RefusalPart):
                    yield part.text
        return
    decoder, texts = api.decoder(), defaultdict(str)
    for event in events:
        for each in decoder.feed(event, ""):
            if isinstance(each, Delta) and each.kind != "image":
                texts[each.choice, each.block, "name"] += each.name
                texts[each.choice, each.block] += each.text
    yield from texts.values()


def heard(api, events):
    """The texts of an answer for guardrails."""
    texts = defaultdict(str)
    for number, event in enumerate(events):
        for place, one in enumerate(api.said(json.loads(event))):
            if hasattr(one, "value"):
                texts[one.channel or (number, place)] += one.value
    return [*texts.values()]


def words(text):
    """A text, or the strings in the arguments of a call."""
    return all_strings(json.loads(text)) if text.startswith("{") else [text]


@pytest.mark.parametrize(("name", "file"), ANSWERS)
def test_readers_of_an_answer_find_the_same_text(name, file):
    path, api, report = GOLDEN / name / file, client_apis()[name], Report()
    events = events_of(path)
    texts = [text for text in translated(provider_apis()[name], path, events) if text not in ("", "{}")]
    for event in events:
        api.observe(event, report)
    if (name, file) != EXPLAINED:
        assert report.output_bytes == sum(len(text.encode()) for text in texts)
    found = heard(api, events)
    for word in (word for text in texts for word in words(text)):
        assert any(word in each for each in found), word


def strings_in(node, path=()):
    """Each place of a string in JSON: its path, with lists as such, its holder and its key."""
    for key, value in node.items() if isinstance(node, dict) else enumerate(node):
        at = (*path, key if isinstance(key, str) else "[]")
        if isinstance(value, str):
            yield at, node, key
        elif isinstance(value, dict | list):
            yield from strings_in(value, at)


@pytest.mark.parametrize(("name", "file"), ANSWERS)
def test_guardrails_see_every_field_that_is_paid_for_or_translated(name, file):
    """Each string of an answer in turn becomes a word that stands nowhere else."""
    path, client, provider, seen = GOLDEN / name / file, client_apis()[name], provider_apis()[name], set()
    trees = [json.loads(event) for event in events_of(path)]
    for index, tree in enumerate(trees):
        for place, holder, key in list(strings_in(tree)):
            kind = (tree.get("type"), *place)
            if kind in seen or key == "type":
                continue
            seen.add(kind)
            before, sizes = holder[key], []
            for holder[key] in ("Zebra", "Zebra" * 9):
                report = Report()
                client.observe(json.dumps(tree).encode(), report)
                sizes.append(report.output_bytes)
            changed = [json.dumps(each).encode() for each in trees]
            holder[key] = before
            try:
                passed = any("Zebra" in text for text in translated(provider, path, changed))
            except ValueError:
                passed = False
            if passed or sizes[0] != sizes[1]:
                assert any("Zebra" in text for text in heard(client, changed[index : index + 1])), place

"""JSON cases from outside this project: `make abuse DATA=dir`.

The directory holds `parsing/*.json`, named y_ (must be read), n_ (must be refused) and i_ (either), and `blns.json`, a
list of strings that break programs.
"""

import json
import os
from pathlib import Path

import pytest

from extproc.wire.framing.json import InvalidJSON, parse

GIVEN = os.environ.get("EXTPROC_JSON_CASES", "")
pytestmark = pytest.mark.skipif(not GIVEN, reason="EXTPROC_JSON_CASES is not set")
FILES = sorted(Path(GIVEN, "parsing").glob("*.json")) if GIVEN else []
STRINGS = json.loads(Path(GIVEN, "blns.json").read_text(encoding="utf-8")) if GIVEN else []

# Valid JSON that we refuse, because two parsers could read it differently.
STRICTER = ("y_object_duplicated_key", "y_object_duplicated_key_and_value")


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_json_is_read_or_refused(file):
    body = file.read_bytes()
    if file.name.startswith("y_") and file.stem not in STRICTER:
        assert parse(body, 512) == json.loads(body)
    elif file.name.startswith("i_"):
        try:
            parse(body, 512)
        except InvalidJSON:
            return
    else:
        with pytest.raises(InvalidJSON):
            parse(body, 512)


@pytest.mark.parametrize("number", range(len(STRINGS)))
async def test_a_naughty_string_is_accepted_as_text(world, number):
    text = STRINGS[number]
    gateway = world("guardrails: [{name: g, kind: regex, patterns: {p: CANARY}}]")
    stream = gateway.stream()
    headers = {":method": "POST", ":path": "/v1/chat/completions", "x-request-id": text, "x-ai-label": text}
    await stream.on_request_headers(headers, end=False)
    body = {"model": "m", "messages": [{"role": "user", "content": text, "name": text}], "user": text, text: text}
    onward = await stream.on_request_body(json.dumps(body, ensure_ascii=number % 2 == 0).encode())
    await stream.on_end()
    assert onward.order == ("try-a",)
    assert len(gateway.log) == 1


@pytest.mark.parametrize("number", range(len(STRINGS)))
async def test_a_naughty_string_is_refused_as_a_model(world, number):
    stream = world().stream()
    await stream.on_request_headers({":method": "POST", ":path": "/v1/chat/completions"}, end=False)
    answer = await stream.on_request_body(json.dumps({"model": STRINGS[number], "messages": [{}]}).encode())
    await stream.on_end()
    assert answer.status in (400, 404)
    json.loads(answer.body)

"""OpenAI's speech: text in, audio out. The audio passes unread.

Source: https://developers.openai.com/api/reference/resources/audio/subresources/speech/methods/create
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from extproc.dialects import azure
from extproc.dialects._passed import Passed, passed_fields
from extproc.dialects.openai_responses.usage import read_usage
from extproc.words.api import Endpoints, Objects, Offers, Stored
from extproc.words.dialect import NO_ENDPOINT, Ask, Endpoint
from extproc.words.errors import INVALID_REQUEST, Refusal
from extproc.words.exchange import Usage

_TOKENS = 1.5
"""Tokens of audio for a character: gpt-4o-mini-tts writes about 1,250 tokens for the 900 characters spoken in a
minute.
"""


class OpenAISpeech(Passed):
    name = "openai_speech"
    endpoints = Endpoints(paths={"/v1/audio/speech": "speech"}, aliases=azure("/v1/audio/speech"))
    fields = passed_fields("input", "instructions", also=("stream_format",))
    text = "input"
    answers = replace(Passed.answers, wordless=True)
    offers = Offers(stored=Stored(objects=Objects(at={"voice.id": "voice"})))

    def read(self, body: Mapping[str, Any], endpoint: Endpoint = NO_ENDPOINT) -> Ask:
        ask = super().read(body, endpoint)
        spoken = body["input"]
        if not isinstance(spoken, str):
            raise Refusal(INVALID_REQUEST, "'input' must be a string, not empty.", param="input")
        ask.stream = body.get("stream_format") == "sse"
        ask.units["characters"] = len(spoken)
        ask.answer_tokens = int(len(spoken) * _TOKENS) + 1
        return ask

    def usage(self, said: Any) -> Usage | None:
        if not isinstance(said, dict):
            return None
        return read_usage({**said, "output_tokens_details": {"audio_tokens": said.get("output_tokens")}})


CLIENT = OpenAISpeech()

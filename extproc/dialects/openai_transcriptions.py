"""OpenAI's transcriptions: audio in, text in the spoken language out. Requests and answers pass unchanged.

Source: https://developers.openai.com/api/reference/resources/audio/subresources/transcriptions/methods/create
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from extproc.dialects import azure, read_model
from extproc.dialects._passed import Passed, add_files, form_flag, passed_fields
from extproc.dialects.openai_chat.usage import read_usage as read_chat_usage
from extproc.dialects.openai_responses.usage import read_usage
from extproc.wire.framing.multipart import FormFile
from extproc.words.api import Endpoints
from extproc.words.dialect import NO_ENDPOINT, Ask, Conversation, Endpoint, Report
from extproc.words.errors import INVALID_REQUEST, Refusal
from extproc.words.exchange import Usage
from extproc.words.said import Closed, Piece, loose

_SLOWEST = 1000  # bytes a second of the slowest MP3
_LONGEST = 1_000_000  # highest plausible length in seconds
_ELSEWHERE = ("url", "file_url", "file_id")
"""Fields of Groq and Mistral for audio outside of the body."""


class _Answer(msgspec.Struct):
    type: Any = None
    text: Any = None
    delta: Any = None
    duration: Any = None
    usage: Any = None
    error: Any = None


class OpenAITranscriptions(Passed):
    name = "openai_transcriptions"
    shape, counts_unread = _Answer, True
    endpoints = Endpoints(
        paths={"/v1/audio/transcriptions": "transcription"}, aliases=azure("/v1/audio/transcriptions"), forms=True
    )
    fields = passed_fields("prompt", also=("file", *_ELSEWHERE, "stream", "response_format"))
    text = "prompt"
    quiet = Passed.quiet | {"usage", "duration", "language", "task", "logprobs", "tokens"}

    def read(self, body: Mapping[str, Any], endpoint: Endpoint = NO_ENDPOINT) -> Ask:  # noqa: ARG002
        ask = Ask(model=read_model(body), stream=form_flag(body, "stream"))
        elsewhere = [name for name in _ELSEWHERE if body.get(name) is not None]
        if not isinstance(body.get("file"), FormFile) and not elsewhere:
            raise Refusal(INVALID_REQUEST, "'file' must be a file of a form ('multipart/form-data').", param="file")
        for name in elsewhere:
            ask.add_unseen(name)
        add_files(ask, body)
        ask.units["seconds"] = ask.file_bytes // _SLOWEST + 1
        ask.answer_tokens = ask.file_tokens + 1
        return ask

    def conversation(self, body: Mapping[str, Any]) -> Conversation:
        prompt = body.get("prompt")
        return Conversation(asked=[prompt] if isinstance(prompt, str) else [])

    def smallest(self, model: str) -> dict[str, Any]:
        return {"model": model, "prompt": "Hello", "url": "https://example.com/hello.mp3"}

    def usage(self, said: Any) -> Usage | None:
        """Usage of OpenAI; Mistral's has the field names of its chat."""
        if not isinstance(said, dict):
            return None
        if "prompt_tokens" in said:
            return read_chat_usage(said)
        return read_usage({**said, "input_tokens_details": said.get("input_token_details")})

    def read_answer(self, answer: Any, report: Report) -> bool:
        if isinstance(answer.delta, str):
            report.add_text(answer.delta)
        elif isinstance(answer.text, str) and not report.output_bytes:
            report.add_text(answer.text)
        if answer.error is not None:
            report.error = "provider_error"
        usage = answer.usage
        timed = isinstance(usage, dict) and ("seconds" in usage or "prompt_audio_seconds" in usage)
        seconds = usage.get("seconds", usage.get("prompt_audio_seconds")) if timed else answer.duration
        if isinstance(seconds, str):  # whisper-1 writes a string
            seconds = float(seconds) if seconds.replace(".", "", 1).isdecimal() else None
        if isinstance(seconds, int | float) and 0 < seconds < _LONGEST:
            report.units["seconds"] = math.ceil(seconds)
        if usage is not None and not (timed and "seconds" in usage):
            report.add_usage(self.usage(usage))
        return False

    def said(self, event: Any) -> Iterator[Piece | Closed]:
        if isinstance(event, dict) and isinstance(event.get("type"), str):
            if isinstance(event.get("delta"), str):
                yield Piece("transcript", event, "delta", ("text",))
                return
            done = event["type"].endswith(".done")
            if done:
                yield Closed(("text",))
            yield from loose(event, "transcript", self.quiet, again=done)
            return
        yield from loose(event, "transcript", self.quiet)


CLIENT = OpenAITranscriptions()

"""OpenAI's audio: speech, and transcriptions and translations, which say the name of the file and the prompt.

Source: https://developers.openai.com/api/reference/resources/audio
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator
from typing import Any

import msgspec

from tests.doubles.answers import Answer, Json, Question, Refused, count_words, streamed, told
from tests.doubles.faults import Event
from tests.doubles.forms import File

SOUND = b"ID3\x04" + bytes(range(256)) * 8
_SPEECH = {"model", "input", "voice", "instructions", "response_format", "speed", "stream_format"}
_TRANSCRIBED = {
    *("model", "file", "language", "prompt", "response_format", "temperature", "stream", "include[]"),
    *("timestamp_granularities[]", "chunking_strategy"),
}
_TRANSLATED = {"model", "file", "prompt", "response_format", "temperature"}


def speech(question: Question) -> Answer:
    """POST /v1/audio/speech."""
    body = question.body
    _check(body, _SPEECH)
    spoken = body.get("input")
    if not isinstance(spoken, str) or not 1 <= len(spoken) <= 4096:
        raise Refused(400, "Input should be a string of 1 to 4096 characters.", param="input")
    if not isinstance(body.get("voice"), str | dict):
        raise Refused(400, "Missing required parameter: 'voice'.", param="voice")
    if body.get("stream_format") == "sse":
        words = count_words(spoken)
        counts = {"input_tokens": words, "output_tokens": 10 * words, "total_tokens": 11 * words}
        delta = {"type": "speech.audio.delta", "audio": b64encode(SOUND).decode()}
        return streamed([_event(delta), _event({"type": "speech.audio.done", "usage": counts}, last=True)])
    return Answer(SOUND)


def transcriptions(question: Question) -> Answer:
    """POST /v1/audio/transcriptions."""
    _check(question.body, _TRANSCRIBED)
    return _written(question)


def translations(question: Question) -> Answer:
    """POST /v1/audio/translations."""
    _check(question.body, _TRANSLATED)
    return _written(question)


def _check(body: Json, known: set[str]) -> None:
    if unknown := body.keys() - known:
        raise Refused(400, f"Unknown parameter: '{min(unknown)}'.", param=min(unknown), code="unknown_parameter")


def _written(question: Question) -> Answer:
    body = question.body
    file = body.get("file")
    if not isinstance(file, File) or not file.startswith((b"ID3", b"RIFF", b"OggS")):
        raise Refused(400, "Audio file might be corrupted or unsupported", param="file", code="invalid_value")
    text = f"This is {file.name}. {body.get('prompt', '')}".strip()
    streams = body.get("stream") == "true"
    if question.model.startswith("whisper"):
        if streams:
            raise Refused(400, "Streaming is not supported for whisper-1.", param="stream")
        usage: Any = {"type": "duration", "seconds": 9}
    else:
        words = count_words(text)
        usage = {
            "type": "tokens",
            "input_tokens": 14 + words,
            "input_token_details": {"text_tokens": words, "audio_tokens": 14},
            "output_tokens": words,
            "total_tokens": 14 + 2 * words,
        }
    usage = told(question.faults, usage)
    counts = {"usage": usage} if usage else {}
    if streams:
        return streamed(list(_events(text, counts)))
    if body.get("response_format") == "verbose_json":
        return Answer({"task": "transcribe", "language": "english", "duration": 8.47, "text": text, **counts})
    return Answer({"text": text, **counts})


def _events(text: str, counts: Json) -> Iterator[Event]:
    for start in range(0, len(text), 4):
        yield _event({"type": "transcript.text.delta", "delta": text[start : start + 4]})
    yield _event({"type": "transcript.text.done", "text": text, **counts}, last=True)


def _event(event: Json, *, last: bool = False) -> Event:
    return Event(msgspec.json.encode(event), event["type"], last)

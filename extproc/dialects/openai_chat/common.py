"""What OpenAI's dialects share: words of their requests, and how streams are asked for usage."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from extproc.words.errors import INVALID_REQUEST, UNSUPPORTED_BY_TARGETS, Refusal

MODES: Mapping[str, Literal["auto", "none", "required"]] = {"auto": "auto", "none": "none", "required": "required"}
"""Of `tool_choice`."""

_MEDIA_TYPES = {
    "txt": "text/plain",
    "md": "text/markdown",
    "csv": "text/csv",
    "html": "text/html",
    "json": "application/json",
    "docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    "pptx": "application/vnd.openxmlformats-officedocument.presentationml.presentation",
}


def file_type(name: str) -> str:
    """The media type of a file that came without one."""
    return _MEDIA_TYPES.get(name.rpartition(".")[2].lower(), "application/pdf")


def data_url(url: str, where: str) -> tuple[str, str]:
    """The media type, and the data in base64. Raises Refusal (400)."""
    head, comma, data = url[5:].partition(",")
    kind, _, encoding = head.rpartition(";")
    if not comma or encoding.strip() != "base64":
        raise wrong(f"'{where}': a data URL must hold base64.", where)
    return kind.partition(";")[0].strip().lower(), data


def check_stream_options(body: Mapping[str, Any]) -> None:
    """Raises Refusal (400)."""
    options = body.get("stream_options")
    if options is not None and not isinstance(options, dict):
        raise wrong("'stream_options' must be an object.", "stream_options")


def usage_request(body: Mapping[str, Any]) -> Mapping[str, Any]:
    """See `Dialect.usage_request`."""
    options = body.get("stream_options") or {}
    return {} if options.get("include_usage") is True else {"stream_options": {**options, "include_usage": True}}


def wrong(message: str, where: str) -> Refusal:
    """The 400 for a field that is not as the API has it."""
    return Refusal(INVALID_REQUEST, message, param=where)


def unsupported(message: str, where: str) -> Refusal:
    """The 400 for a field that no translation can carry."""
    return Refusal(UNSUPPORTED_BY_TARGETS, message, param=where)

"""Gemini's files: resumable uploads, and files that a prompt can name by their address.

Sources: https://ai.google.dev/api/files, https://ai.google.dev/gemini-api/docs/files
"""

from __future__ import annotations

import hashlib
import re
from base64 import b64encode
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

from tests.doubles.answers import Answer, Json, Question, Refused, header
from tests.doubles.gemini_shapes import camel

ADDRESS = "https://generativelanguage.googleapis.com/v1beta/"
CHUNK = 256 << 10
"""Parts other than the last have a multiple of this size."""
_path = re.compile(r"/v1beta/(files/[a-z0-9-]{1,40})").fullmatch


@dataclass
class _Session:
    size: int
    metadata: Json
    content: bytearray = field(default_factory=bytearray)


_sessions: dict[tuple[str, str], _Session] = {}
_files: dict[tuple[str, str], Json] = {}
"""By the double's name and the name of the file."""


def is_part(target: str) -> bool:
    return target.startswith("/upload/") and "upload_id=" in target


def upload(question: Question) -> Answer:
    """POST /upload/v1beta/files, without a session or with one."""
    sessions = parse_qs(question.query).get("upload_id")
    return _begin(question) if sessions is None else _part(question, sessions[0])


def _begin(question: Question) -> Answer:
    command = header(question.headers, "x-goog-upload-command")
    size = header(question.headers, "x-goog-upload-header-content-length")
    kind = header(question.headers, "x-goog-upload-header-content-type")
    if header(question.headers, "x-goog-upload-protocol") != "resumable" or command != "start" or not (size and kind):
        raise Refused(400, "Not a start of a resumable upload.")
    metadata = camel(question.body.get("file") or {})
    if question.body.keys() - {"file"} or metadata.keys() - {"displayName", "mimeType", "sizeBytes"}:
        raise Refused(400, "Invalid JSON payload received. Unknown name.")
    id = f"AHm-{question.digest}_{len(_sessions)}"
    _sessions[question.name, id] = _Session(int(size), {"mimeType": kind, **metadata})
    address = f"https://generativelanguage.googleapis.com/upload/v1beta/files?upload_id={id}&upload_protocol=resumable"
    told = {
        "x-goog-upload-status": "active",
        "x-goog-upload-url": address,
        "x-goog-upload-control-url": address,
        "x-guploader-uploadid": id,
        "x-goog-upload-chunk-granularity": str(CHUNK),
    }
    return Answer(b"", headers=tuple((name.encode(), value.encode()) for name, value in told.items()))


def _part(question: Question, id: str) -> Answer:
    session = _sessions.get((question.name, id))
    if session is None:
        raise Refused(404, "Upload session not found.")
    command = (header(question.headers, "x-goog-upload-command") or "").replace(" ", "").split(",")
    if command == ["query"]:
        size = str(len(session.content)).encode()
        return Answer(b"", headers=((b"x-goog-upload-status", b"active"), (b"x-goog-upload-size-received", size)))
    part = question.body["part"]
    if "upload" not in command or header(question.headers, "x-goog-upload-offset") != str(len(session.content)):
        raise Refused(400, "The offset is not the end of what was received.")
    session.content += part
    if "finalize" not in command:
        if len(part) % CHUNK:
            raise Refused(400, f"A part must have a multiple of {CHUNK} bytes.")
        return Answer(b"", headers=((b"x-goog-upload-status", b"active"),))
    if len(session.content) != session.size:
        raise Refused(400, "The size of the file is not the one that was announced.")
    del _sessions[question.name, id]
    digest = hashlib.sha256(session.content).hexdigest()
    name = f"files/{digest[:12]}"
    file = {
        "name": name,
        **session.metadata,
        "sizeBytes": str(session.size),
        "createTime": "2026-11-24T18:37:24.123Z",
        "sha256Hash": b64encode(digest.encode()).decode(),
        "uri": f"{ADDRESS}{name}",
        "state": "ACTIVE",
        "source": "UPLOADED",
    }
    _files[question.name, name] = file
    return Answer({"file": file}, headers=((b"x-goog-upload-status", b"final"),))


def check(question: Question) -> None:
    """Refuse a prompt that names a file which is not there."""
    for content in camel(question.body.get("contents")) or ():
        for part in content.get("parts") or ():
            uri = (part.get("fileData") or {}).get("fileUri") or ""
            if uri.startswith(ADDRESS) and (question.name, uri.removeprefix(ADDRESS)) not in _files:
                raise Refused(403, "You do not have permission to access the File, or it may not exist.")


def call(name: str, method: str, path: str) -> Any:
    """The answer to a call about a file; None for another path."""
    match = _path(path)
    if match is None:
        return None
    if (name, match[1]) not in _files:
        raise Refused(403, "You do not have permission to access the File, or it may not exist.")
    match method:
        case "GET":
            return _files[name, match[1]]
        case "DELETE":
            del _files[name, match[1]]
            return {}
    raise Refused(400, f"Not allowed to {method} {path}")

"""Files and batches that a double keeps. A batch is done at once: its output has an answer for each request.

Sources: https://developers.openai.com/api/reference/resources/files, .../batches
"""

from __future__ import annotations

import json
import re
from typing import Any

from tests.doubles.answers import CREATED, Answer, Json, Question, Refused
from tests.doubles.forms import File

_MOST = 1000
_PURPOSES = ("assistants", "batch", "fine-tune", "vision", "user_data", "evals")
_ENDPOINTS = ("/v1/chat/completions", "/v1/responses", "/v1/embeddings", "/v1/completions", "/v1/moderations")
_kept: dict[tuple[str, str], Any] = {}
"""By the double's name and the id: (the object, its content)."""

_path = re.compile(r"/v1/(files|batches)/([A-Za-z0-9_-]+)(/content|/cancel)?").fullmatch


def upload(question: Question) -> Answer:
    """POST /v1/files."""
    body = question.body
    _known(body, {"file", "purpose", "expires_after[anchor]", "expires_after[seconds]"})
    file = body.get("file")
    if not isinstance(file, File) or body.get("purpose") not in _PURPOSES:
        raise Refused(400, "'file' and 'purpose' are required properties", param="file")
    return Answer(_keep_file(question.name, f"file-{question.digest}", bytes(file), file.name, body["purpose"]))


def create_batch(question: Question) -> Answer:
    """POST /v1/batches."""
    body = question.body
    _known(body, {"input_file_id", "endpoint", "completion_window", "metadata", "output_expires_after"})
    if body.get("completion_window") != "24h" or body.get("endpoint") not in _ENDPOINTS:
        raise Refused(400, "Invalid 'completion_window' or 'endpoint'.", param="endpoint")
    found = _kept.get((question.name, body["input_file_id"]))
    if found is None or found[0]["purpose"] != "batch":
        raise Refused(400, f"Invalid 'input_file_id': '{body['input_file_id']}' not found.", param="input_file_id")
    lines = [json.loads(line) for line in found[1].splitlines()]
    if len({line["body"]["model"] for line in lines}) != 1 or any("/" in line["body"]["model"] for line in lines):
        raise Refused(400, "The provided model is not supported by the Batch API.", code="model_not_found")
    answers = [
        {"id": f"batch_req_{number}", "custom_id": line["custom_id"], "response": {"status_code": 200}, "error": None}
        for number, line in enumerate(lines)
    ]
    output = "\n".join(map(json.dumps, answers)).encode()
    made = _keep_file(question.name, f"file-out{question.digest}", output, "output.jsonl", "batch_output")
    batch = {
        "id": f"batch_{question.digest}",
        "object": "batch",
        "endpoint": body["endpoint"],
        "errors": None,
        "input_file_id": body["input_file_id"],
        "completion_window": "24h",
        "status": "completed",
        "output_file_id": made["id"],
        "error_file_id": None,
        "created_at": CREATED,
        "request_counts": {"total": len(lines), "completed": len(lines), "failed": 0},
        "metadata": body.get("metadata"),
    }
    _keep(question.name, batch, b"")
    return Answer(batch)


def call(name: str, method: str, path: str) -> Any:
    """The answer to a call about a file or batch; None for another path."""
    match = _path(path)
    if match is None:
        return None
    kind, id, verb = match.groups()
    if (name, id) not in _kept:
        raise Refused(404, f"No such {'File' if kind == 'files' else 'Batch'} object: {id}", param="id")
    found, content = _kept[name, id]
    match kind, method, verb:
        case _, "GET", None:
            return found
        case "files", "GET", "/content":
            return content
        case "files", "DELETE", None:
            del _kept[name, id]
            return {"id": id, "object": "file", "deleted": True}
        case "batches", "POST", "/cancel":
            return found | {"status": "cancelling"}
    raise Refused(405, f"Not allowed to {method} on {path}.", code="method_not_allowed")


def _known(body: Json, known: set[str]) -> None:
    if unknown := body.keys() - known:
        raise Refused(400, f"Unrecognized request argument supplied: {min(unknown)}", param=min(unknown))


def _keep_file(name: str, id: str, content: bytes, filename: str, purpose: str) -> Json:
    found = {
        "id": id,
        "object": "file",
        "bytes": len(content),
        "created_at": CREATED,
        "filename": filename,
        "purpose": purpose,
        "status": "processed",
    }
    _keep(name, found, content)
    return found


def _keep(name: str, found: Json, content: bytes) -> None:
    _kept[name, found["id"]] = found, content
    while len(_kept) > _MOST:
        del _kept[next(iter(_kept))]

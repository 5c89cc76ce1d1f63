"""Files and batches that a double keeps.

Sources: https://developers.openai.com/api/reference/resources/files, .../batches
"""

from __future__ import annotations

import json
import re
from typing import Any

from tests.doubles import batches
from tests.doubles.answers import CREATED, Answer, Json, Question, Refused, header
from tests.doubles.batches import Job, input_of, output_of
from tests.doubles.forms import File

_MOST = 1000
_PURPOSES = ("assistants", "batch", "fine-tune", "vision", "user_data", "evals")
_ENDPOINTS = ("/v1/chat/completions", "/v1/responses", "/v1/embeddings", "/v1/completions", "/v1/moderations")
_kept: dict[tuple[str, str], Any] = {}
"""By the double's name and the id: (the object, its content)."""

_path = re.compile(r"/v1/(files|batches)/([A-Za-z0-9_-]+)(/content|/cancel)?").fullmatch


def upload(question: Question) -> Answer:
    """POST /v1/files, also Anthropic's."""
    body = question.body
    if header(question.headers, "anthropic-version"):
        return _upload_claude(question)
    _known(body, {"file", "purpose", "expires_after[anchor]", "expires_after[seconds]"})
    file = body.get("file")
    if not isinstance(file, File) or body.get("purpose") not in _PURPOSES:
        raise Refused(400, "'file' and 'purpose' are required properties", param="file")
    return Answer(_keep_file(question.name, f"file-{question.digest}", bytes(file), file.name, body["purpose"]))


def _upload_claude(question: Question) -> Answer:
    """Source: https://platform.claude.com/docs/en/api/files-create."""
    file = question.body.get("file")
    if question.body.keys() - {"file", "expires_in_seconds"} or not isinstance(file, File):
        raise Refused(400, "file: Field required, and nothing else permitted")
    found: Json = {"id": f"file_{question.digest}", "type": "file", "filename": file.name, "mime_type": "text/plain"}
    found |= {"size_bytes": len(file), "created_at": "2026-11-24T18:37:24Z", "downloadable": False}
    _keep(question.name, found, bytes(file))
    return Answer(found)


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
    requests = [(line["custom_id"], line["body"]) for line in lines]
    names = ("endpoint", "input_file_id", "completion_window", "metadata")
    job = Job(f"batch_{question.digest}{len(_kept)}", requests, {name: body.get(name) for name in names})
    return Answer(_shown(question.name, batches.keep(question.name, job)))


def _shown(name: str, job: Job) -> Json:
    """A batch as the API shows it. Without `metadata.old` it tells its usage."""
    status = "validating" if not job.looks else "cancelling" if job.cancelled else "in_progress"
    given, output = job.usage()
    usage = {
        "input_tokens": given,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": output,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": given + output,
    }
    file = None
    if job.ended:
        status = "cancelled" if job.cancelled else "expired" if job.count("expired") else "completed"
        lines = "\n".join(json.dumps(_answer(job, number)) for number in range(len(job.requests))).encode()
        file = _keep_file(name, f"file-out{job.id}", lines, "output.jsonl", "batch_output")["id"]
    done, failed = job.count("answered") * job.ended, job.count("failed") * job.ended
    return {
        "id": job.id,
        "object": "batch",
        "errors": None,
        **job.more,
        "status": status,
        "output_file_id": file,
        "error_file_id": None,
        "created_at": CREATED,
        "request_counts": {"total": len(job.requests), "completed": done, "failed": failed},
        **({"usage": usage} if job.ended and "old" not in (job.more["metadata"] or {}) else {}),
    }


def _answer(job: Job, number: int) -> Json:
    """A line of the output."""
    custom, asked = job.requests[number]
    line = {"id": f"batch_req_{number}", "custom_id": custom, "response": None, "error": None}
    if (outcome := job.outcome(number)) != "answered":
        return line | {"error": {"code": f"batch_{outcome}", "message": "The request was not answered."}}
    given, output = input_of(number), output_of(number)
    usage = {"prompt_tokens": given, "completion_tokens": output, "total_tokens": given + output}
    body = {"id": f"chatcmpl-{number}", "object": "chat.completion", "model": asked["model"], "usage": usage}
    return line | {"response": {"status_code": 200, "request_id": f"req_{number}", "body": body}}


def call(name: str, method: str, path: str) -> Any:
    """The answer to a call about a file or batch; None for another path."""
    match = _path(path)
    if match is None:
        return None
    kind, id, verb = match.groups()
    if kind == "batches" and (job := batches.find(name, id)) is not None:
        if (method, verb) not in (("GET", None), ("POST", "/cancel")):
            raise Refused(405, f"Not allowed to {method} on {path}.", code="method_not_allowed")
        job.cancelled |= verb == "/cancel"
        job.look()
        return _shown(name, job)
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
            claude = found.get("type") == "file"
            return {"id": id, "type": "file_deleted"} if claude else {"id": id, "object": "file", "deleted": True}
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

"""Anthropic's batches of messages. See `batches` for how they end.

Sources: https://platform.claude.com/docs/en/api/messages/batches
"""

from __future__ import annotations

import json
import re
from typing import Any

from msgspec.structs import replace

from tests.doubles import anthropic, batches
from tests.doubles.answers import Answer, Json, Question, Refused
from tests.doubles.batches import Job, input_of, output_of

_path = re.compile(r"/v1/messages/batches/([A-Za-z0-9_-]+)(/cancel|/results)?").fullmatch
_SAID = {"failed": "errored", "expired": "expired", "cancelled": "canceled", "answered": "succeeded"}


def create(question: Question) -> Answer:
    """POST /v1/messages/batches."""
    listed = question.body.get("requests")
    if question.body.keys() != {"requests"} or not isinstance(listed, list) or not listed:
        raise Refused(400, "requests: Field required, and nothing else permitted")
    for number, each in enumerate(listed):
        if each.keys() != {"custom_id", "params"} or each["params"].get("stream") is not None:
            raise Refused(400, f"requests.{number}: Extra inputs are not permitted")
        anthropic.messages(replace(question, body=each["params"], model=""))
    ids = [each["custom_id"] for each in listed]
    if len(set(ids)) != len(ids):
        raise Refused(400, "requests: custom_id must be unique")
    requests = [(each["custom_id"], each["params"]) for each in listed]
    job = batches.keep(question.name, Job(f"msgbatch_{question.digest}", requests))
    return Answer(_shown(job))


def _shown(job: Job) -> Json:
    status = "ended" if job.ended else "canceling" if job.cancelled else "in_progress"
    counts = {said: job.ended * job.count(outcome) for outcome, said in _SAID.items()}
    url = f"https://api.anthropic.com/v1/messages/batches/{job.id}/results"
    return {
        "id": job.id,
        "type": "message_batch",
        "processing_status": status,
        "request_counts": {"processing": 0 if job.ended else len(job.requests), **counts},
        "created_at": "2026-11-24T18:37:24Z",
        "expires_at": "2026-11-25T18:37:24Z",
        "ended_at": "2026-11-24T19:00:00Z" if job.ended else None,
        "cancel_initiated_at": "2026-11-24T18:40:00Z" if job.cancelled else None,
        "archived_at": None,
        "results_url": url if job.ended else None,
    }


def _line(job: Job, number: int) -> Json:
    custom, asked = job.requests[number]
    kind = _SAID[job.outcome(number)]
    result: Json = {"type": kind}
    if kind == "errored":
        result["error"] = {"type": "error", "error": {"type": "api_error", "message": "Internal"}, "request_id": None}
    elif kind == "succeeded":
        usage = {"input_tokens": input_of(number), "output_tokens": output_of(number), "service_tier": "batch"}
        result["message"] = {
            "id": f"msg_{number}",
            "type": "message",
            "role": "assistant",
            "model": asked["model"],
            "content": [{"type": "text", "text": "Said."}],
            "stop_reason": "end_turn",
            "stop_sequence": None,
            "usage": usage,
        }
    return {"custom_id": custom, "result": result}


def call(name: str, method: str, path: str) -> Any:
    """The answer to a call about a batch; None for another path."""
    match = _path(path)
    if match is None:
        return None
    id, verb = match.groups()
    job = batches.find(name, id)
    if job is None:
        raise Refused(404, f"Message batch {id} not found")
    match method, verb:
        case "GET", None:
            job.look()
            return _shown(job)
        case "GET", "/results" if job.ended:
            return "\n".join(json.dumps(_line(job, number)) for number in range(len(job.requests))).encode()
        case "POST", "/cancel":
            job.cancelled = True
            return _shown(job)
        case "DELETE", None if job.ended:
            batches.delete(name, id)
            return {"id": id, "type": "message_batch_deleted"}
    raise Refused(400, f"Not allowed to {method} {path} now")

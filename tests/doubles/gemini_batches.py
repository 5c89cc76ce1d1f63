"""Gemini's batches of generateContent, with their requests in the body. See `batches` for how they end.

Sources: https://ai.google.dev/api/batch-api
"""

from __future__ import annotations

import re
from typing import Any

from msgspec.structs import replace

from tests.doubles import batches, gemini
from tests.doubles.answers import Answer, Json, Question, Refused
from tests.doubles.batches import Job, input_of, output_of

_path = re.compile(r"/v1beta/batches/([A-Za-z0-9_-]+)(:cancel)?").fullmatch


def create(question: Question) -> Answer:
    """POST …/models/{model}:batchGenerateContent."""
    batch = question.body.get("batch") or {}
    if question.body.keys() != {"batch"} or not batch.keys() <= {"displayName", "inputConfig", "model", "priority"}:
        raise Refused(400, "Invalid JSON payload received. Unknown name.")
    for each in batch["inputConfig"]["requests"]["requests"]:
        if not each.keys() <= {"request", "metadata"}:
            raise Refused(400, "Invalid JSON payload received. Unknown name.")
        request = dict(each["request"])
        if request.pop("model", f"models/{question.model}") != f"models/{question.model}":
            raise Refused(400, "All requests must have the model of the batch.")
        gemini.generate_content(replace(question, body=request))
    listed = batch["inputConfig"]["requests"]["requests"]
    requests = [((each.get("metadata") or {}).get("key", "none"), each) for each in listed]
    job = Job(f"batches/{question.digest}", requests, {"model": question.model, "name": batch.get("displayName")})
    return Answer(_shown(batches.keep(question.name, job)))


def _shown(job: Job) -> Json:
    state = "RUNNING" if job.looks else "PENDING"
    if job.ended:
        state = "CANCELLED" if job.cancelled else "EXPIRED" if job.count("expired") else "SUCCEEDED"
    stats = {"requestCount": len(job.requests)}
    if job.ended:
        stats |= {"successfulRequestCount": job.count("answered"), "failedRequestCount": job.count("failed")}
    metadata = {
        "@type": "type.googleapis.com/google.ai.generativelanguage.v1main.GenerateContentBatch",
        "name": job.id,
        "model": f"models/{job.more['model']}",
        "displayName": job.more["name"],
        "createTime": "2026-11-24T18:37:24.123Z",
        "batchStats": {name: str(count) for name, count in stats.items() if count},
        "state": f"BATCH_STATE_{state}",
    }
    shown: Json = {"name": job.id, "metadata": metadata}
    if job.ended:
        output = {"inlinedResponses": {"inlinedResponses": [_answer(job, at) for at in range(len(job.requests))]}}
        metadata["output"] = output
        shown |= {"done": True, "response": output}
    return shown


def _answer(job: Job, number: int) -> Json:
    told = {"metadata": job.requests[number][1].get("metadata", {})}
    if job.outcome(number) != "answered":
        return told | {"error": {"code": 13, "message": "The request was not answered."}}
    given, output = input_of(number), output_of(number)
    candidate = {"content": {"role": "model", "parts": [{"text": "Said."}]}, "finishReason": "STOP", "index": 0}
    usage = {"promptTokenCount": given, "candidatesTokenCount": output, "totalTokenCount": given + output}
    return told | {
        "response": {"candidates": [candidate], "usageMetadata": usage, "modelVersion": job.more["model"]},
    }


def call(name: str, method: str, path: str) -> Any:
    """The answer to a call about a batch; None for another path."""
    match = _path(path)
    if match is None:
        return None
    id, verb = f"batches/{match[1]}", match[2]
    job = batches.find(name, id)
    if job is None:
        raise Refused(404, f"Batch {id} not found")
    match method, verb:
        case "GET", None:
            job.look()
            return _shown(job)
        case "POST", ":cancel":
            job.cancelled = True
            return {}
        case "DELETE", None:
            batches.delete(name, id)
            return {}
    raise Refused(400, f"Not allowed to {method} {path}")

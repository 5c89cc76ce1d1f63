"""The services that guardrails ask, as functions in the place of the HTTP client. Text with BAD in it is refused, each
MASKME is replaced. They refuse what the real ones refuse.
"""

import json
import re
from contextlib import contextmanager

from extproc.wire.outbound.pool import ConnectionPool

PROVIDERS = """
providers:
  a: {kind: vllm, base_url: 'http://127.0.0.1:8090/v1'}
  oa: {kind: openai, base_url: 'https://oa.test/v1', api_key: env:SERVICE_KEY}
  aws: {kind: aws_bedrock, region: eu-west-1, base_url: 'https://aws.test', api_key: env:SERVICE_KEY}
models: {m: {provider: a}}
consumers: [{name: judge, keys: [{env: JUDGE_KEY}]}]
"""
KINDS = {
    "webhook": "kind: webhook, url: 'http://hook.test/check', key: env:SERVICE_KEY",
    "kgateway": "kind: webhook, api: kgateway, url: 'http://hook.test', key: env:SERVICE_KEY",
    "moderation": "kind: moderation, provider: oa",
    "llm_judge": "kind: llm_judge, model: m, consumer: judge, rubric: 'Nothing that is BAD may pass here.'",
    "bedrock": "kind: bedrock, provider: aws, guardrail: abc123, version: '3'",
    "azure_content_safety": "kind: azure_content_safety, url: 'https://azure.test', key: env:SERVICE_KEY",
    "presidio": "kind: presidio, url: 'http://presidio.test'",
    "anonymizer": "kind: presidio, url: 'http://presidio.test', anonymizer_url: 'http://presidio.test'",
}
MASKS = ("webhook", "kgateway", "bedrock", "presidio", "anonymizer")


def bad(text):
    return "BAD" in text


def masked(text, by="***"):
    return text.replace("MASKME", by)


def _native(body):
    assert set(body) == {"guardrail", "on", "exchange", "consumer", "model", "texts"}
    texts = [each["text"] for each in body["texts"]]
    if (index := next((index for index, text in enumerate(texts) if bad(text)), None)) is not None:
        return {"verdict": "block", "message": "Not\nhere.", "kind": "swearing", "text": index}
    if any("MASKME" in text for text in texts):
        return {"verdict": "mask", "transformed": [masked(text) for text in texts], "result": {"your": "own"}}
    return {"verdict": "allow"}


def _kgateway(path, body):
    [(_, said)] = body["body"].items()
    messages = said if path == "/request" else [each["message"] for each in said]
    assert set(body["body"]) == {"messages" if path == "/request" else "choices"}
    assert all(set(each) == {"role", "content"} and isinstance(each["content"], str) for each in messages)
    if any(bad(each["content"]) for each in messages):
        return {"action": {"body": "Not here.", "status_code": 403, "reason": None}}
    if not any("MASKME" in each["content"] for each in messages):
        return {"action": {"reason": None}}
    new = [{**each, "content": masked(each["content"])} for each in messages]
    if path == "/request":
        return {"action": {"body": {"messages": new}, "reason": "it was there"}}
    return {"action": {"body": {"choices": [{"message": each} for each in new]}}}


def _moderation(body):
    assert body["model"] == "omni-moderation-latest"
    assert all(isinstance(text, str) and text for text in body["input"])
    scores = [{"hate": 0.9 if bad(text) else 0.01, "self-harm/intent": 0.3} for text in body["input"]]
    flags = [{"hate": score["hate"] > 0.5, "self-harm/intent": False} for score in scores]
    results = [
        {"flagged": flag["hate"], "categories": flag, "category_scores": score}
        for flag, score in zip(flags, scores, strict=True)
    ]
    return {"id": "modr-1", "model": "omni-moderation-latest", "results": results}


def judge(body):
    text = body["messages"][-1]["content"]
    passages = json.loads(text.split("\n")[1])
    found = next((each["passage"] for each in passages if bad(each["text"])), None)
    verdict = {"verdict": "allow", "passage": 0} if found is None else {"verdict": "block", "passage": found}
    return chat(json.dumps(verdict))


def chat(text, finish="stop"):
    """An answer of a model."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish}
    return {"id": "c", "object": "chat.completion", "model": "m", "choices": [choice]}


def _bedrock(body):
    assert set(body) == {"source", "content"}
    assert body["source"] in ("INPUT", "OUTPUT")
    texts = [each["text"]["text"] for each in body["content"]]
    usage = {"contentPolicyUnits": 1}
    if any(map(bad, texts)):
        filters = [{"type": "HATE", "confidence": "HIGH", "action": "BLOCKED"}]
        said = [{"contentPolicy": {"filters": [*filters, {"type": "SEXUAL", "confidence": "LOW", "action": "NONE"}]}}]
        return {"usage": usage, "action": "GUARDRAIL_INTERVENED", "outputs": [{"text": "No."}], "assessments": said}
    if not any("MASKME" in text for text in texts):
        return {"usage": usage, "action": "NONE", "outputs": [], "assessments": [{}]}
    found = [{"match": "MASKME", "type": "NAME", "action": "ANONYMIZED"}]
    outputs = [{"text": masked(text, "{NAME}")} for text in texts]
    said = [{"sensitiveInformationPolicy": {"piiEntities": found, "regexes": []}}]
    return {"usage": usage, "action": "GUARDRAIL_INTERVENED", "outputs": outputs, "assessments": said}


def _azure(path, body):
    if path == "/contentsafety/text:analyze?api-version=2024-09-01":
        assert 0 < len(body["text"]) <= 10_000
        names = {"Hate": "BAD", "SelfHarm": "", "Sexual": "", "Violence": ""}
        found = [
            {"category": name, "severity": 6 if bad(body["text"]) and names[name] else 0} for name in body["categories"]
        ]
        lists = [
            {"blocklistName": name, "blocklistItemId": "1", "blocklistItemText": "x"}
            for name in body.get("blocklistNames", ())
            if "LISTED" in body["text"]
        ]
        return {"blocklistsMatch": lists, "categoriesAnalysis": found}
    assert path == "/contentsafety/text:shieldPrompt?api-version=2024-09-01"
    assert len(body["userPrompt"]) + sum(map(len, body["documents"])) <= 10_000
    documents = [{"attackDetected": "ATTACK" in text} for text in body["documents"]]
    return {"userPromptAnalysis": {"attackDetected": "ATTACK" in body["userPrompt"]}, "documentsAnalysis": documents}


def _presidio(path, body):
    if path == "/analyze":
        assert {"text", "language"} <= set(body)
        found = [("PERSON", match) for match in re.finditer("MASKME|BAD", body["text"])]
        entries = [{"entity_type": kind, "start": at.start(), "end": at.end(), "score": 0.85} for kind, at in found]
        return [{**each, "analysis_explanation": None} for each in entries] + [
            {"entity_type": "DATE_TIME", "start": 0, "end": 0, "score": 0.1}
        ]
    assert path == "/anonymize"
    assert body["analyzer_results"]
    text = body["text"]
    for entry in sorted(body["analyzer_results"], key=lambda entry: -entry["start"]):
        text = text[: entry["start"]] + f"<{entry['entity_type']}>" + text[entry["end"] :]
    return {"text": text, "items": []}


def real(host, path, headers, body):
    """The status and the answer of the service at `host`."""
    key = headers.get("authorization") or headers.get("ocp-apim-subscription-key")
    wanted = {"127.0.0.1": "Bearer judge-key", "azure.test": "service-key", "presidio.test": None}
    if key != wanted.get(host, "Bearer service-key"):
        return 401, {"error": "key"}
    if host == "hook.test" and path == "/check":
        return 200, _native(body)
    if host == "hook.test" and path in ("/request", "/response"):
        return 200, _kgateway(path, body)
    if (host, path) == ("oa.test", "/v1/moderations"):
        return 200, _moderation(body)
    if (host, path) == ("127.0.0.1", "/v1/chat/completions"):
        return 200, judge(body)
    if (host, path) == ("aws.test", "/guardrail/abc123/version/3/apply"):
        return 200, _bedrock(body)
    if host == "azure.test":
        return 200, _azure(path, body)
    if host == "presidio.test":
        return 200, _presidio(path, body)
    return 404, {}


class Services:
    """`asked` holds the requests. `answer` may be replaced: a function of host, path, headers and body, which gives
    (status, JSON or bytes), or raises what the HTTP client raises.
    """

    def __init__(self):
        self.asked = []
        self.answer = real

    async def post(self, pool, target, body, headers):
        body = json.loads(body)
        self.asked.append((pool._host, target, headers, body))
        said = self.answer(pool._host, target, headers, body)
        status, answer = await said if hasattr(said, "__await__") else said
        return status, answer if isinstance(answer, bytes) else json.dumps(answer).encode()

    @property
    def texts(self):
        """What the webhook of the native API was asked about."""
        return [[each["text"] for each in body["texts"]] for _, _, _, body in self.asked]


@contextmanager
def services(monkeypatch):
    made = Services()
    monkeypatch.setenv("SERVICE_KEY", "service-key")
    monkeypatch.setenv("JUDGE_KEY", "judge-key")

    async def post(self, target, body, headers):
        return await made.post(self, target, body, headers)

    monkeypatch.setattr(ConnectionPool, "post", post)
    yield made

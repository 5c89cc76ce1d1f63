"""Google's embeddings, on the Gemini API and on Vertex: the vectors of embeddings.py.

Vertex' predict takes one instance for models named gemini, 250 for the others.

Sources: https://ai.google.dev/api/embeddings, the official SDK and, for predict,
https://cloud.google.com/vertex-ai/generative-ai/docs/model-reference/text-embeddings-api
"""

from __future__ import annotations

from typing import Any

from tests.doubles import gemini
from tests.doubles.answers import Answer, Json, Question, Refused, count_words, told
from tests.doubles.embeddings import vector
from tests.doubles.gemini_shapes import CONTENT, message
from tests.doubles.shapes import array, boolean, integer, one_of, string, text

MOST_REQUESTS = 100
MOST_INSTANCES = 250
_USUAL_SIZE = 8  # the default, as for all embeddings here
_SIZE = integer(1, 3072)
_TASK = one_of(
    "TASK_TYPE_UNSPECIFIED",
    "RETRIEVAL_QUERY",
    "RETRIEVAL_DOCUMENT",
    "SEMANTIC_SIMILARITY",
    "CLASSIFICATION",
    "CLUSTERING",
    "QUESTION_ANSWERING",
    "FACT_VERIFICATION",
    "CODE_RETRIEVAL_QUERY",
)
_SETTINGS = {"taskType": _TASK, "title": string, "outputDimensionality": _SIZE}
_ON_VERTEX = {
    "content!": CONTENT,
    "model": string,
    "embedContentConfig": message(
        _SETTINGS | {"autoTruncate": boolean, "documentOcr": boolean, "audioTrackExtraction": boolean}
    ),
}
_BATCHES = {
    False: message({"requests!": array(message(_SETTINGS | {"model!": text(), "content!": CONTENT}))}),
    True: message({"requests!": array(message(_ON_VERTEX))}),
}
_PREDICT = message(
    {
        "instances!": array(message({"content!": string, "taskType": _TASK, "title": string, "mimeType": string})),
        "parameters": message({"outputDimensionality": _SIZE, "autoTruncate": boolean}),
    }
)
_ONE = {False: message(_SETTINGS | {"model": text(), "content!": CONTENT}), True: message(_ON_VERTEX)}


def batch(question: Question, *, vertex: bool = False) -> Answer:
    """POST …/models/{model}:batchEmbedContents."""
    requests = _checked(_BATCHES[vertex], question.body, "BatchEmbedContentsRequest")["requests"]
    where = "* BatchEmbedContentsRequest.requests"
    if not requests:
        raise Refused(400, f"{where}: requests is not specified", param="requests")
    if len(requests) > MOST_REQUESTS:
        raise Refused(400, f"{where}: at most {MOST_REQUESTS} requests can be in one batch", param="requests")
    for index, each in enumerate(requests):
        if not vertex and each["model"] != f"models/{question.model}":
            raise Refused(400, f"{where}[{index}].model: model must be models/{question.model}", param="requests")
    vectors = [_vector(each, each.get("embedContentConfig") or each) for each in requests]
    tokens = sum(_tokens(each) for each in requests)
    return Answer({"embeddings": [{"values": each} for each in vectors]} | _usage(question, tokens))


def embed(question: Question, *, vertex: bool = True) -> Answer:
    """POST …/models/{model}:embedContent."""
    body = _checked(_ONE[vertex], question.body, "EmbedContentRequest")
    if body.get("model", f"models/{question.model}") != f"models/{question.model}":
        raise Refused(400, f"* EmbedContentRequest.model: model must be models/{question.model}", param="model")
    values = _vector(body, (body.get("embedContentConfig") or {}) if vertex else body)
    more = {"truncated": False} if vertex else {}
    return Answer({"embedding": {"values": values}, **more} | _usage(question, _tokens(body)))


def predict(question: Question) -> Answer:
    """POST …/models/{model}:predict."""
    body = _checked(_PREDICT, question.body, "PredictRequest")
    instances = body["instances"]
    most = 1 if "gemini" in question.model else MOST_INSTANCES
    if not 0 < len(instances) <= most:
        raise Refused(400, f"{most} instance(s) is allowed per prediction. Actual: {len(instances)}")
    size = (body.get("parameters") or {}).get("outputDimensionality") or _USUAL_SIZE
    for each in instances:
        _check_text(each["content"])
        _check_title(each)
    return Answer(
        {
            "predictions": [{"embeddings": _prediction(question, each["content"], size)} for each in instances],
            "metadata": {"billableCharacterCount": sum(len(each["content"]) for each in instances)},
        }
    )


def _checked(shape: Any, body: Json, name: str) -> Json:
    try:
        return gemini.checked(shape, body)
    except Refused as refused:
        message = refused.message.replace("GenerateContentRequest", name)
        raise Refused(refused.status, message, param=refused.param) from None


def _vector(request: Json, settings: Json) -> list[float]:
    parts = request["content"].get("parts") or []
    spoken = "".join(part.get("text") or "" for part in parts)
    if not any("inlineData" in part or "fileData" in part for part in parts):
        _check_text(spoken)
    _check_title(settings)
    return vector(spoken, settings.get("outputDimensionality") or _USUAL_SIZE).tolist()


def _check_text(spoken: str) -> None:
    if not spoken:
        raise Refused(400, "The text content is empty.")


def _check_title(settings: Json) -> None:
    if settings.get("title") and settings.get("taskType") != "RETRIEVAL_DOCUMENT":
        raise Refused(400, "The `title` is only applicable when the task type is RETRIEVAL_DOCUMENT.")


def _tokens(request: Json) -> int:
    parts = request["content"].get("parts") or []
    return max(1, sum(count_words(part.get("text") or "") for part in parts))


def _usage(question: Question, tokens: int) -> Json:
    counts = told(question.faults, {"promptTokenCount": tokens})
    return {"usageMetadata": counts} if counts else {}


def _prediction(question: Question, spoken: str, size: int) -> Json:
    counts = told(question.faults, {"token_count": max(1, count_words(spoken))})
    values = vector(spoken, size).tolist()
    return {"values": values} | ({"statistics": counts | {"truncated": False}} if counts else {})

"""OpenAI's moderations: text with the word "attack" is flagged.

Source: https://platform.openai.com/docs/api-reference/moderations
"""

from __future__ import annotations

from typing import Any

from tests.doubles.answers import Answer, Question, Refused

_CATEGORIES = (
    *("harassment", "harassment/threatening", "hate", "hate/threatening", "illicit", "illicit/violent"),
    *("self-harm", "self-harm/instructions", "self-harm/intent", "sexual", "sexual/minors"),
    *("violence", "violence/graphic"),
)
_MODELS = ("omni-moderation-", "text-moderation-")


def moderations(question: Question) -> Answer:
    """POST /v1/moderations."""
    body = question.body
    if unknown := body.keys() - {"model", "input"}:
        raise Refused(400, f"Unknown parameter: '{min(unknown)}'.", param=min(unknown), code="unknown_parameter")
    if not question.model.startswith(_MODELS):
        raise Refused(404, f"The model '{question.model}' does not exist.", param="model", code="model_not_found")
    given = body.get("input")
    inputs = [given] if isinstance(given, str) else given
    if not isinstance(inputs, list) or not inputs:
        raise Refused(400, "'input' is a required property", param="input")
    if all(isinstance(each, dict) for each in inputs):
        inputs = [" ".join(map(_part, inputs))]
    results = [_result(text) for text in inputs]
    return Answer({"id": f"modr-{question.digest}", "model": question.model, "results": results})


def _part(part: Any) -> str:
    match part:
        case {"type": "text", "text": str(text)}:
            return text
        case {"type": "image_url", "image_url": {"url": str()}}:
            return ""
    raise Refused(400, "Invalid type for 'input'.", param="input")


def _result(text: Any) -> Any:
    if not isinstance(text, str):
        raise Refused(400, "Invalid type for 'input'.", param="input")
    bad = "attack" in text
    return {
        "flagged": bad,
        "categories": {name: bad and name == "violence" for name in _CATEGORIES},
        "category_scores": {name: 0.9 if bad and name == "violence" else 0.01 for name in _CATEGORIES},
        "category_applied_input_types": {name: ["text"] for name in _CATEGORIES},
    }

"""OpenAI's list of models."""

from __future__ import annotations

from tests.doubles.answers import CREATED, Json

MODELS = ("gpt-4o", "gpt-4o-mini", "stub", "text-embedding-3-small")


def models() -> Json:
    """GET /v1/models."""
    return {"object": "list", "data": [model(name) for name in MODELS]}


def model(name: str) -> Json:
    """GET /v1/models/{id}: every name is served."""
    return {"id": name, "object": "model", "created": CREATED, "owned_by": "mock"}

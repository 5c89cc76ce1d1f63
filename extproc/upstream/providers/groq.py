"""Groq."""

from collections.abc import Collection, Mapping
from typing import Any

from extproc.upstream.providers import Provider


def adapts(body: Mapping[str, Any], needs: Collection[str]) -> bool:  # noqa: ARG001
    return body.get("reasoning_effort") is not None


def adapt(dialect: str, model: str, stream: bool, path: str, body: dict[str, Any]) -> tuple[str, dict[str, Any]]:  # noqa: ARG001
    """Map reasoning effort for Qwen's models, which can only switch thinking on or off:
    https://console.groq.com/docs/reasoning.
    """
    if "qwen" in model and body.get("reasoning_effort") not in (None, "none"):
        body = {**body, "reasoning_effort": "default"}
    return path, body


PROVIDER = Provider(
    gen_ai_name="groq",
    source="https://console.groq.com/docs/openai",
    base_url="https://api.groq.com/openai/v1",
    dialects=(
        "openai_chat",
        "openai_speech",
        "openai_transcriptions",
        "openai_audio_translations",
        "openai_files",
        "openai_batches",
    ),
    adapt=adapt,
    adapts=adapts,
    catalogue="groq",
    example=("{kind: groq, api_key: env:GROQ_API_KEY}", "llama-3.3-70b-versatile"),
)

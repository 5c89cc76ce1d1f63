"""Google Vertex AI: Gemini, and Anthropic's models under their names there (claude-sonnet-4-5@20250929)."""

from typing import Any
from urllib.parse import quote

from extproc.upstream.providers import Provider


def adapt(dialect: str, model: str, stream: bool, path: str, body: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    if dialect != "anthropic_messages":
        return f"/google{path}", body
    body = {name: value for name, value in body.items() if name != "model"}
    verb = "streamRawPredict" if stream else "rawPredict"
    return f"/anthropic/models/{quote(model, safe='@')}:{verb}", {"anthropic_version": "vertex-2023-10-16", **body}


PROVIDER = Provider(
    gen_ai_name="gcp.vertex_ai",
    source="https://cloud.google.com/vertex-ai/generative-ai/docs/model-reference/inference",
    base_url="https://{region}-aiplatform.googleapis.com/v1/projects/{project}/locations/{region}/publishers",
    adapt=adapt,
    dialects=("anthropic_messages", "gemini_generate_content", "vertex_embeddings"),
    client_query=("alt",),
    client_headers=("anthropic-beta",),  # https://platform.claude.com/docs/en/build-with-claude/claude-on-vertex-ai
    models={"anthropic_messages": ("claude-*",)},
    no_urls=("anthropic_messages",),  # https://github.com/anthropics/anthropic-sdk-typescript/issues/1038
    tokens="google",
    catalogue="google",
    example=(
        "{kind: gcp_vertex_ai, project: acme-ml, region: europe-west4, api_key: file:/run/secrets/google-token}",
        "gemini-3.8-flash",
    ),
)

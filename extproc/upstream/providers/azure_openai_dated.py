"""Azure OpenAI by the older, dated `api_version`s: the deployment stands in the path."""

from typing import Any
from urllib.parse import quote

from extproc.upstream.providers import Credential, Provider
from extproc.words.dialect import BatchLimits


def adapt(dialect: str, model: str, stream: bool, path: str, body: dict[str, Any]) -> tuple[str, dict[str, Any]]:  # noqa: ARG001
    return f"/deployments/{quote(model, safe='')}{path}", body


PROVIDER = Provider(
    gen_ai_name="azure.ai.openai",
    source="https://learn.microsoft.com/en-us/azure/ai-foundry/openai/reference",
    base_path="/openai",
    query={"api-version": "{api_version}"},
    adapt=adapt,
    dialects=("openai_chat", "openai_embeddings"),
    credential=Credential("api-key", ""),
    batches={"*": BatchLimits(2048)},  # https://learn.microsoft.com/en-us/azure/ai-services/openai/how-to/embeddings
    tokens="azure",
    catalogue="azure",
    example=(
        (
            "{kind: azure_openai_dated, base_url: https://acme-eu.openai.azure.com, api_version: '2024-10-21', "
            "api_key: env:AZURE_OPENAI_API_KEY}"
        ),
        "my-gpt-6-luna-deployment",
    ),
)

"""Azure OpenAI, version 1 of its API; `base_url` is https://<resource>.openai.azure.com. Models are deployments."""

from extproc.providers import Credential, Provider

PROVIDER = Provider(
    gen_ai_name="azure.ai.openai",
    source="https://learn.microsoft.com/en-us/azure/ai-foundry/openai/api-version-lifecycle",
    base_path="/openai/v1",
    dialects=("openai_chat", "openai_responses", "openai_embeddings", "openai_completions"),
    credential=Credential("api-key", ""),
    catalogue="azure",
)

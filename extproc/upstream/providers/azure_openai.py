"""Azure OpenAI, version 1 of its API; `base_url` is https://<resource>.openai.azure.com. Models are deployments."""

from extproc.upstream.providers import Credential, Provider
from extproc.upstream.providers.openai import REASON
from extproc.words.dialect import BatchLimits

PROVIDER = Provider(
    gen_ai_name="azure.ai.openai",
    source="https://learn.microsoft.com/en-us/azure/ai-foundry/openai/api-version-lifecycle",
    base_path="/openai/v1",
    cache_keys=("openai_chat", "openai_responses"),
    dialects=(
        "openai_chat",
        "openai_responses",
        "openai_responses_input_tokens",
        "openai_responses_compact",
        "openai_embeddings",
        "openai_completions",
        "openai_images",
        "openai_speech",
        "openai_transcriptions",
        "openai_audio_translations",
        "openai_files",
        "openai_batches",
    ),
    prefers={"openai_responses": REASON},  # applies to deployments named like their model
    credential=Credential("api-key", ""),
    batches={"*": BatchLimits(2048)},  # https://learn.microsoft.com/en-us/azure/ai-services/openai/how-to/embeddings
    tokens="azure",
    catalogue="azure",
    example=(
        "{kind: azure_openai, base_url: https://acme-eu.openai.azure.com, api_key: env:AZURE_OPENAI_API_KEY}",
        "my-gpt-6-luna-deployment",
    ),
)

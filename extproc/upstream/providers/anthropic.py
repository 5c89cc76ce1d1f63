"""Anthropic."""

from extproc.upstream.providers import Credential, Provider

PROVIDER = Provider(
    gen_ai_name="anthropic",
    source="https://docs.anthropic.com/en/api/messages",
    base_url="https://api.anthropic.com/v1",
    dialects=("anthropic_messages", "anthropic_count_tokens", "anthropic_batches", "anthropic_files"),
    credential=Credential("x-api-key", ""),
    headers={"anthropic-version": "2023-06-01"},
    client_headers=("anthropic-beta",),  # https://docs.anthropic.com/en/api/beta-headers
    client_query=("beta",),  # the SDK's beta methods send it
    catalogue="anthropic",
    example=("{kind: anthropic, api_key: env:ANTHROPIC_API_KEY}", "claude-sonnet-5-5"),
)

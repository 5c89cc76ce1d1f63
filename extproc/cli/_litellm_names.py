"""Names in LiteLLM's configuration, and the corresponding names of this gateway.

Source: https://docs.litellm.ai/docs/providers and /docs/proxy/config_settings, as of 2026-11.
"""

from __future__ import annotations

KINDS = {
    kind: kind for kind in ("openai", "anthropic", "groq", "deepseek", "openrouter", "perplexity", "databricks")
} | {
    "text-completion-openai": "openai",
    "azure": "azure_openai",
    "azure_ai": "azure_openai",
    "bedrock": "aws_bedrock",
    "cerebras": "cerebras",
    "cloudflare": "cloudflare",
    "cohere": "cohere",
    "cohere_chat": "cohere",
    "fireworks_ai": "fireworks",
    "gemini": "gcp_gemini",
    "github": "github_models",
    "hosted_vllm": "vllm",
    "jina_ai": "jina",
    "mistral": "mistral_ai",
    "nvidia_nim": "nvidia",
    "ollama": "ollama",
    "ollama_chat": "ollama",
    "together_ai": "together",
    "vertex_ai": "gcp_vertex_ai",
    "voyage": "voyage",
    "xai": "x_ai",
}
"""This gateway's kinds of provider, by the first part of a model's name in LiteLLM."""
COMPATIBLE = ("custom_openai", "litellm_proxy", "llamafile", "lm_studio", "openai_like")
"""First parts of names that stand for a self-hosted service with OpenAI's API."""
ALONE = {
    r"(?:gpt-|o\d|chatgpt-|text-embedding-|ft:|whisper-|tts-|dall-e-)": "openai",
    r"claude-": "anthropic",
    r"gemini-": "vertex_ai",
    r"command-": "cohere",
}
"""First parts that LiteLLM assumes for names without one, by patterns of the name."""
STRATEGIES = {
    "simple-shuffle": "weighted",
    "least-busy": "weighted",
    "usage-based-routing": "weighted",
    "usage-based-routing-v2": "weighted",
    "latency-based-routing": "latency",
    "cost-based-routing": "cost",
}
DEFAULTS = {"frequency_penalty", "max_completion_tokens", "max_tokens", "presence_penalty", "reasoning_effort"}
DEFAULTS |= {"seed", "service_tier", "stop", "temperature", "top_p", "verbosity"}
"""Fields of requests that a deployment sets for clients that leave them out."""
OVERRIDES = "extra_body"
"""Key of a deployment with the fields that it sets in every request."""
NO_COUNTERPART = "no counterpart"


def counterpart(key: str) -> str:
    """A note with the page about a key that is not converted, or that no page covers it."""
    if key.startswith("mcp_"):
        return "see docs/mcp.md"
    if key.startswith(_CREDENTIALS):
        return "see docs/providers/credentials.md"
    return f"see {_HINTS[key]}" if key in _HINTS else NO_COUNTERPART


_HINTS = {
    "access_groups": "`groups` in docs/access.md",
    "allowed_fails": "`cool_down` in docs/failover.md",
    "cache": "docs/cache.md",
    "cache_params": "docs/cache.md",
    "callbacks": "docs/telemetry.md",
    "context_window_fallbacks": "`context` in docs/failover.md",
    "cooldown_time": "`cool_down` in docs/failover.md",
    "database_url": "`stores.ledger` in docs/ledger.md",
    "enable_pre_call_checks": "`context` in docs/failover.md",
    "extra_headers": "`headers` of a provider in docs/configuration.md",
    "failure_callback": "docs/telemetry.md",
    "guardrails": "docs/guardrails.md",
    "success_callback": "docs/telemetry.md",
} | dict.fromkeys(("redis_host", "redis_password", "redis_port", "redis_url"), "`stores.counters` in docs/budgets.md")
_CREDENTIALS = ("aws_", "azure_ad_", "client_id", "client_secret", "tenant_id")

"""Places of the body that name further models, at routers that speak several APIs.

Sources: https://openrouter.ai/docs/guides/routing/model-fallbacks (`models`, and `fallbacks` as in Anthropic's API),
https://openrouter.ai/docs/guides/features/server-tools/advisor, https://openrouter.ai/docs/guides/features/plugins
"""

from __future__ import annotations

EACH = "*"
"""The step of a place that stands for every item of a list."""
ROUTERS = (
    ("models", EACH),
    ("fallbacks", EACH, "model"),
    ("tools", EACH, "parameters", "model"),
    ("plugins", EACH, "model"),
    ("plugins", EACH, "analysis_models", EACH),
)

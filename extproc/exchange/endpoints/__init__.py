"""Endpoints that the gateway answers itself: models, token counts, a consumer's usage and budgets."""

"""Outbound HTTP: requests that this process makes itself, to webhooks and token endpoints."""

"""Requests that this process makes itself, to webhooks and token endpoints; and questions to processes that help it."""

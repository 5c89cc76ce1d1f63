"""HTTP requests of this process to webhooks and token endpoints, and questions to helper processes."""

"""MCP: the gateway for tools, and runs that an untrusted tool has answered."""

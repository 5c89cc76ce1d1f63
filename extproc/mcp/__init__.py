"""The MCP gateway: profiles of tools, prompts and resources, which the servers behind them offer.

settings.py   `mcp:` of the filter YAML
stages.py     the stages of one request, in order: the table of contents
call.py       one exchange as the stages see it
"""

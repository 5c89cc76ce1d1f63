"""Users who sign in at servers that know only their own accounts: by a link, in a browser, once for the whole fleet.

settings.py   `mcp.sign_ins` and `auth.sign_in` of the filter YAML
sign_ins.py   links, the way through an authorization server, tokens and their renewal
pages.py      pages of the gateway for the browser
"""

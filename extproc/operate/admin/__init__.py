"""HTTP for people and probes, on a thread of its own so that a slow scraper never delays a request.

Two applications: `http` (metrics and health, no token) and `api` (spending, budgets, exchanges, the console). They and
their libraries are imported with the first connection; `doors` and `spare` import neither.
"""

"""Budgets before a request, the ledger behind it, and the books that keep both in agreement."""

"""Accounting: what exchanges used and cost, and keeping counters and ledger in agreement."""

"""Accounting: use and cost of exchanges, and agreement between counters and ledger."""

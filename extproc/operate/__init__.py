"""Operators: metrics and logs, the admin API, the reports behind it."""

"""Faults under load: `python -m bench.faults` breaks one thing after the other and prints a table.

Each fault lasts a few seconds under 100 requests a second and 50 open streams. The table has the expected effect, the
errors that clients saw meanwhile and afterwards, and the time until the last of them. The exit code is 1 when a fault
had another effect than the documented one. `--write` writes the table into docs/faults.md.
"""

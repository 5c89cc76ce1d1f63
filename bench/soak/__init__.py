"""What must hold of budgets, held to it live: `python -m bench.soak` (`--short`: a tenth of it).

Three processors behind one Envoy share a Redis and a ledger. Clients stream, leave and are refused; processors are
killed; exchanges are settled twice; the store is paused, killed and emptied. A redis-server has to be installed; the
ledger is a PostgreSQL where its programs are, else SQLite. Exit code 1 when anything did not hold.
"""

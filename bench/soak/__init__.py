"""The invariants of budgets under live load: `python -m bench.soak` (`--short`: a tenth of it).

Three processors behind one Envoy share a Redis and a ledger. Clients stream, disconnect and are refused. Processors are
killed, exchanges are settled twice, and the store is paused, killed and emptied. A redis-server has to be installed.
The ledger is PostgreSQL if its server is installed, otherwise SQLite. The exit code is 1 when an invariant did not
hold.
"""

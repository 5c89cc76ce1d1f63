"""Streamed answers that pass unread: Envoy follows them, and its access log of the try settles the exchange.

    Ask          stage: asks Envoy to follow the answer, where nothing needs its body
    watch.lua    in the internal listener: keeps windows of the answer and counts its bytes and lines of data
    windows      the windows, and the report that the client's dialect reads from them
    waiting      exchanges whose answer passed unread, until the log tells

The names below are those of metadata keys and sizes in `watch.lua`.

An answer that passes unread does not enter Python. `Ask` asks for it in an internal header. The script counts bytes and
lines of data, keeps windows, and says so in a header that providers cannot forge; at that header `Read` lets the answer
pass. The exchange waits in `Waiting` until the access log of the try brings the windows. The client's dialect reads
them with the code that reads whole answers, and the same stages settle the exchange.

The log entry and the head of the answer arrive in either order; only the entry of the try that answered counts. Envoy
reports each answer that goes on (`usage.log_interval`), and three intervals of silence end the wait. The script writes
its counts down every few pieces, because a client that disconnects ends it without a word. `EventStage.reason` says why
a stage has to see an answer.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from extproc.words import contract

HEAD = 2048
"""Bytes of the beginning of an answer that are kept."""
TAIL = 16384
"""Bytes of its end."""
BESIDE = 2048
"""Bytes before and behind the latest usage object that are kept."""
COUNTS = 4
"""Pieces, of `HEAD` bytes at most in all, after which the counts are written down again, for a few microseconds."""
EVERY = 64
"""Pieces, of `TAIL` bytes at most in all, after which the tail is written down again: a client that leaves ends the
script without a word.
"""
TIMES = 16
"""Pieces at the beginning whose time is written down, and the tail after each."""


@cache
def script() -> str:
    """The Lua source for Envoy."""
    values = {
        "NAMESPACE": f'"{contract.LOG_NAMESPACE}"',
        "SEEN": f'"{contract.SEEN_NAMESPACE}"',
        "WATCHED": f'"{contract.WATCHED}"',
        "HEAD": HEAD,
        "TAIL": TAIL,
        "BESIDE": BESIDE,
        "COUNTS": COUNTS,
        "EVERY": EVERY,
        "TIMES": TIMES,
    }
    head = "".join(f"local {name} = {value}\n" for name, value in values.items())
    return head + Path(__file__).with_name("watch.lua").read_text(encoding="utf-8")

"""Counts tokens in a separate process (`tokenizer`), which begins with the first count and ends when idle: the ranks
take 80 MB, and reading them stops all other threads for a while.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

import extproc
from extproc.money.budgets import tokenizer
from extproc.wire.outbound.helper import Helper, HelperError
from extproc.words.dialect import Fields

_WITHIN = 10.0  # seconds for one count
_LOG_EVERY = 60.0  # seconds between two log lines
_log = logging.getLogger("extproc")
# Run the file by its path: as a module, the process would import half of the gateway.
_RUN = "import runpy, sys; sys.path.append(sys.argv[1]); runpy.run_path(sys.argv[2], None, '__main__')"
helper = Helper(
    (sys.executable, "-P", "-c", _RUN, str(Path(extproc.__file__).parents[1]), tokenizer.__file__), within=_WITHIN
)
_logged = -_LOG_EVERY
_encode = msgspec.msgpack.Encoder().encode
_decode: Callable[[bytes], int | None] = msgspec.msgpack.Decoder(int | None).decode


def load() -> threading.Thread:
    """Start the process. The returned thread ends when the process can count, or has failed."""
    thread = threading.Thread(target=about, args=("",), name="tokenizer", daemon=True)
    thread.start()
    return thread


def about(text: str) -> int | None:
    """The result of `tokenizer.about`; None if the process fails. Blocks; call it on a thread."""
    return _ask(False, [text])


def bound(body: Mapping[str, Any], images: Collection[str], most: int, fields: Fields) -> int | None:
    """The result of `tokenizer.bound`; None if the process fails, or has yet to start, which this call does. Blocks;
    call it on a thread.
    """
    if helper.pid is None:
        load()
        return None
    return tokenizer.bound(body, images, most, fields, lambda texts: _ask(True, texts))


def _ask(bounds: bool, texts: Sequence[str]) -> int | None:
    try:
        found = _decode(helper.ask(_encode((bounds, [text.encode(errors="replace") for text in texts]))))
    except HelperError as error:
        found, why = None, str(error)
    else:
        why = "the ranks cannot be read"
    if found is None:
        log_failure(why)
    return found


def log_failure(why: str) -> None:
    """Log that a text was not counted, at most once a minute."""
    global _logged  # noqa: PLW0603 - one process, one log
    if time.monotonic() - _logged >= _LOG_EVERY:
        _logged = time.monotonic()
        _log.error("tokens are estimated by the size of texts: the process that counts them: %s", why)

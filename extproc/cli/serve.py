"""`extproc serve`: the processor alone."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ctypes
import logging
import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import NoReturn

import uvloop

from extproc.cli import _stop, _supervise
from extproc.cli._options import add_config, seconds
from extproc.money.ledger import LedgerError
from extproc.operate.telemetry.lines import WHOLE, Lines, LinesHandler
from extproc.operate.telemetry.logs import JSONFormatter
from extproc.settings import bound, config
from extproc.settings.config import Settings
from extproc.stores import StoreError
from extproc.words.values import offline

EXAMPLES = """\
  extproc serve -c gateway.yaml --secrets /run/extproc/secrets     beside the Envoy of `extproc envoy`
"""
_LOG_BUFFER = 1 << 20  # bytes of the log's buffer
_PR_SET_PDEATHSIG = 1  # prctl(2)
_M_MMAP_THRESHOLD, _LARGE_BLOCK = -3, 1 << 20  # the option is from glibc's malloc.h; bytes
_AFTER_DRAIN = 20.0  # most seconds to write owed settles and rows to the stores before the process ends


def arguments(parser: argparse.ArgumentParser) -> None:
    add_config(parser)
    parser.add_argument("--socket", metavar="PATH", help="unix socket to listen on (default: processor.socket)")
    parser.add_argument(
        "--secrets", type=Path, metavar="DIR", help="keep the providers' keys and tokens in this directory, for Envoy"
    )
    parser.add_argument(
        "--drain-notice",
        type=seconds,
        default=3.0,
        metavar="SECONDS",
        help="on SIGTERM, time for Envoy's health check to notice (default: 3)",
    )
    parser.add_argument(
        "--drain-grace",
        type=seconds,
        default=600.0,
        metavar="SECONDS",
        help="on SIGTERM, time for running streams to end (default: 600)",
    )
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)  # `_supervise` gives it
    parser.add_argument("--parent", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--first", type=int, help=argparse.SUPPRESS)


def run(options: argparse.Namespace) -> int:
    """Serve until SIGTERM or SIGINT, then drain. Raises ConfigError, or OSError for an address in use."""
    _stop.block_signals()
    # At some levels gRPC's own C logging prints addresses and tokens of peers, so it logs only errors.
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    handler = LinesHandler(Lines(sys.stderr.fileno(), _LOG_BUFFER, lambda: None, at_once=WHOLE))
    handler.setFormatter(JSONFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    settings = config.load(options.config)
    first = None if options.first is None else _first(options.first)
    if first is not None and first != config.text(options.config):
        settings = as_begun(settings, first)
    for doubt in config.lint(options.config):
        if options.worker is None:
            logging.getLogger("extproc").warning("%s", doubt.show(str(options.config)))
    if settings.processor.workers > 1:
        if options.worker is None:
            _become_supervisor(options, settings)
        _end_with(options.parent)
    with contextlib.suppress(OSError, AttributeError):  # the libc is not glibc
        # Return large blocks to the system when they are freed. By default glibc keeps them after the first free of
        # their size.
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _LARGE_BLOCK)
    # These imports reuse memory that was freed after reading the settings, which saves 3 MB.
    from extproc.envoy.server.processor import Processor  # noqa: PLC0415
    from extproc.envoy.server.processor import run as serve  # noqa: PLC0415

    async def until_stopped() -> None:
        stopped = asyncio.Event()
        loop = asyncio.get_running_loop()
        patience = options.drain_notice + options.drain_grace + _AFTER_DRAIN
        _stop.on_signal(lambda: loop.call_soon_threadsafe(stopped.set), patience)
        processor = Processor(
            options.config,
            settings,
            socket=options.socket,
            secrets=options.secrets,
            worker=options.worker or 0,
            first=first,
        )
        await serve(
            processor,
            stopped,
            _ready,
            notice=options.drain_notice,
            grace=options.drain_grace,
        )

    try:
        uvloop.run(until_stopped())
    except (StoreError, LedgerError) as error:
        remedy = ""
        if any(sign in str(error) for sign in ("not a database", "malformed", "SQLITE_NOTADB", "SQLITE_CORRUPT")):
            remedy = "; put a backup in its place, or move it away to begin anew"
        elif "cannot open" in str(error):
            remedy = "; start where files may be written, or give `stores` other paths"
        print(f"stores: {error}{remedy}", file=sys.stderr)
        return 1
    return 0


def _become_supervisor(options: argparse.Namespace, settings: Settings) -> NoReturn:
    """Become the supervisor of the workers, each of which runs this command. They share the current text of the
    settings, in a file without a name.
    """
    first = _unnamed_file()
    os.write(first, config.text(options.config).encode())
    os.set_inheritable(first, True)
    command = [sys.executable, "-m", "extproc", "serve", "--config", str(options.config)]
    command += ["--drain-notice", str(options.drain_notice), "--drain-grace", str(options.drain_grace)]
    command += ["--socket", options.socket] if options.socket else []
    command += ["--secrets", str(options.secrets)] if options.secrets else []
    command += ["--parent", str(os.getpid()), "--first", str(first)]
    sockets = settings.processor.sockets(options.socket)
    logging.shutdown()  # flushes the log
    _supervise.take_over(workers=[([*command, "--worker", str(index)], path) for index, path in enumerate(sockets)])


def _unnamed_file() -> int:
    """The descriptor of a new file. On Linux it is in memory: a pod's containers have no place for temporary files."""
    if sys.platform == "linux":
        return os.memfd_create("settings")
    descriptor, path = tempfile.mkstemp()
    os.unlink(path)  # noqa: PTH108
    return descriptor


def as_begun(settings: Settings, first: str) -> Settings:
    """`settings`, with the values of the other workers for everything fixed at the start. They began with the text
    `first`; with another store here, each store would count a part of the budgets.
    """
    with offline():  # an old secret may be gone; secrets in use are read at their use
        return bound.fixed(settings, config.parse(first))


def _first(descriptor: int) -> str:
    """The text of the settings with which the workers began."""
    os.set_inheritable(descriptor, False)
    return os.pread(descriptor, config.MAX_FILE, 0).decode()


def _end_with(parent: int) -> None:
    """Drain when the supervisor ends, in whatever way."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM))
    if os.getppid() != parent:  # the supervisor ended before the call above
        raise OSError("the supervisor of the workers has ended")


def _ready() -> None:
    """Log that the processor is ready, and free memory that only the start needed."""
    from extproc.envoy.server.collector import only_when_told  # noqa: PLC0415

    only_when_told()
    with contextlib.suppress(OSError, AttributeError):  # the libc is not glibc
        ctypes.CDLL(None).malloc_trim(0)
    print("extproc is ready", file=sys.stderr, flush=True)

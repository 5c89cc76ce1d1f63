"""`extproc drain`: lets Envoy finish its requests before it is stopped."""

from __future__ import annotations

import argparse

from extproc.cli import _drain
from extproc.wire.transport import workers

EXAMPLES = """\
  extproc drain --admin /run/envoy/admin.sock                drain now, and say by the status how it ended
  extproc drain --admin /run/envoy/admin.sock --wait         a container beside Envoy: drain at SIGTERM, then end
"""
ADMIN = "/run/envoy/admin.sock"
MARK = workers.drain_mark(workers.SOCKET)


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--admin", default=ADMIN, metavar="PATH", help=f"Envoy's admin socket, as in `extproc envoy` (default: {ADMIN})"
    )
    parser.add_argument(
        "--notice",
        type=float,
        default=5.0,
        metavar="SECONDS",
        help="least time of the drain, in which load balancers look elsewhere (default: 5)",
    )
    parser.add_argument(
        "--grace", type=float, default=600.0, metavar="SECONDS", help="time for open requests to end (default: 600)"
    )
    parser.add_argument(
        "--mark",
        default=MARK,
        metavar="FILE",
        help="file by which the processor learns of the drain, so that its /readyz is 503: `drain/NAME` beside its "
        f"socket NAME.sock (default: {MARK})",
    )
    parser.add_argument("--wait", action="store_true", help="begin at SIGTERM")


def run(options: argparse.Namespace) -> int:
    """Become the script that drains. Its status is 0 when no request is left, or Envoy is gone; else 1."""
    _drain.take_over(options.admin, options.notice, options.grace, options.mark, wait=options.wait)

"""`extproc mock`: the mock provider alone."""

from __future__ import annotations

from extproc.upstream.mock import add_arguments as arguments
from extproc.upstream.mock import run

EXAMPLES = """\
  extproc mock --port 8089                      a provider at http://127.0.0.1:8089/v1
  extproc mock --port 8089 --fault status=503   one that is down
"""

__all__ = ["EXAMPLES", "arguments", "run"]

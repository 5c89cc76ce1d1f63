"""A release, the one before it, and both again, on one ledger and one store of counters: `python -m bench.upgrade REF`.

REF is a commit or tag of the earlier release. It is checked out and installed into `build/upgrade`. Each release in
turn starts with `extproc up`, answers requests under a budget, and stops as a pod does. Fails when a request fails, a
row is missing in the ledger, or its rows do not charge each request to the budget.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

from bench import load
from bench.harness import KEY, ROOT, free_port

HOME = ROOT / "build" / "upgrade"
_SETTINGS = """
listener: {{address: 127.0.0.1, port: {listener}}}
status: {{address: 127.0.0.1, port: {status}}}
admin: {{address: 127.0.0.1, port: {admin}}}
providers: {{sandbox: {{kind: mock, base_url: "http://127.0.0.1:{mock}/v1"}}}}
models: {{stub: {{provider: sandbox, price: {{input: 1, output: 1}}}}}}
consumers: [{{name: bench, keys: [{{env: BENCH_KEY}}]}}]
budgets: [{{name: all, unit: requests, limit: 1000000, window: total}}]
stores: {{counters: "sqlite:{folder}/counters.db", ledger: "sqlite:{folder}/ledger.db"}}
"""
_PATIENCE = 60.0  # seconds for a start and a stop


def earlier(ref: str) -> str:
    """The path of the earlier release's `extproc`, installed if it is not."""
    commit = subprocess.run(
        ["git", "rev-parse", ref], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.strip()
    mark, source = HOME / ".installed", HOME / "source"
    if not mark.exists() or mark.read_text() != commit:
        shutil.rmtree(HOME, ignore_errors=True)
        HOME.mkdir(parents=True)
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(source)], check=True)
        subprocess.run(["git", "checkout", "--quiet", commit], cwd=source, check=True)
        subprocess.run([sys.executable, "-m", "venv", str(HOME / "venv")], check=True)
        wanted = ["-c", ".ci/constraints.txt", ".[local]"]
        subprocess.run([f"{HOME}/venv/bin/pip", "install", "--quiet", *wanted], cwd=source, check=True)
        mark.write_text(commit)
    return f"{HOME}/venv/bin/extproc"


def turn(extproc: str, folder: Path, port: int, status: int, requests: int) -> list[str]:
    """Start a release, send requests, and stop it. Returns the requests' errors."""
    command = [extproc, "up", "--config", str(folder / "gateway.yaml")]
    env = {**os.environ, "BENCH_KEY": KEY}
    env.pop("PYTHONPATH", None)
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(command, cwd=folder, env=env, stdout=log, stderr=log)
    try:
        wait_ready(status)
        return asyncio.run(load.run(port, load.request("stub"), total=requests, concurrency=16)).errors
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(_PATIENCE)


def wait_ready(status: int) -> None:
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{status}/readyz", timeout=2) as answer:
                if answer.status == 200:
                    return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise SystemExit("the gateway did not get ready")


def counted(folder: Path) -> tuple[int, int]:
    """Rows of the ledger, and what they charged to the budget."""
    with sqlite3.connect(folder / "ledger.db") as ledger:
        charges = [json.loads(text) for [text] in ledger.execute("select charges from exchanges")]
    return len(charges), sum(each["all"] for each in charges)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("ref", help="commit or tag of the earlier release")
    parser.add_argument("--requests", type=int, default=500, help="of each turn (default: 500)")
    options = parser.parse_args()
    old, new = earlier(options.ref), str(Path(sys.executable).with_name("extproc"))
    with tempfile.TemporaryDirectory(prefix="upgrade-") as name:
        folder = Path(name)
        ports = {one: free_port() for one in ("listener", "status", "admin", "mock")}
        (folder / "gateway.yaml").write_text(_SETTINGS.format(folder=folder, **ports))
        failed, sent = [], 0
        for number, (what, extproc) in enumerate((("old", old), ("new", new), ("old", old), ("new", new)), 1):
            failed += turn(extproc, folder, ports["listener"], ports["status"], options.requests)
            sent += options.requests
            rows, charged = counted(folder)
            print(f"{number} {what}: {sent} requests, {len(failed)} failed, {rows} rows, {charged} charged", flush=True)
            if failed or rows != sent or charged != sent:
                raise SystemExit((folder / "log").read_text()[-2000:])


if __name__ == "__main__":
    main()

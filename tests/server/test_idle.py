"""What a processor does not load before something needs it. `python -m bench.idle` measures what that saves."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import yaml

from tests.e2e.conftest import free_ports

SCRIPT = """
import asyncio, json, sys, urllib.request
from pathlib import Path
from extproc.settings import config

HEAVY = ("grpc", "starlette", "uvicorn", "httpx", "httpx2", "genai_prices.data", "envoy_data_plane")

async def main():
    file = Path("gateway.yaml")
    settings = config.load(file)
    from extproc.envoy.server.processor import Processor
    processor = Processor(file, settings, socket="p.sock", secrets=Path("secrets"))
    await processor.start()
    idle = [name for name in HEAVY if name in sys.modules]
    ask = lambda port, path: asyncio.to_thread(lambda: urllib.request.urlopen(f"http://127.0.0.1:{port}{path}").read())
    ready = (await ask(settings.status.port, "/readyz")).decode()
    await ask(settings.admin.port, "/usage")
    asked = [name for name in HEAVY if name in sys.modules]
    await processor.stop(notice=0, grace=0)
    print(json.dumps([idle, ready, asked]))

asyncio.run(main())
"""


def test_an_idle_processor_has_not_loaded_what_only_reports_and_probes_need(tmp_path):
    here = Path(__file__).parents[2]
    status, admin = free_ports(2)
    settings = yaml.safe_load((here / "gateway.yaml").read_text())
    settings |= {"status": {"port": status}, "admin": {"port": admin}}
    (tmp_path / "gateway.yaml").write_text(yaml.safe_dump(settings))
    env = {**os.environ, "PYTHONPATH": str(here), "EXTPROC_DEMO_KEY": "sk-gw-demo"}
    command = [sys.executable, "-c", SCRIPT]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    idle, ready, asked = json.loads(done.stdout)
    assert idle == []
    assert ready == "ok\n"
    assert asked == ["starlette", "uvicorn"]

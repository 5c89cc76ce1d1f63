"""Other gateways for `python -m bench --beside Ferro Portkey LiteLLM`: how each is installed and started.

They are installed into `build/others` when they are first asked for: pip packages into an environment of their own, npm
packages into a folder. Each runs with its defaults, as one process, before the same stub,
without its limit of the rate.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.harness import KEY, ROOT

HOMES = ROOT / "build" / "others"
_LITELLM = """\
model_list:
  - model_name: "*"
    litellm_params: {model: "openai/*", api_base: os.environ/BENCH_UPSTREAM, api_key: none}
litellm_settings: {num_retries: 0, telemetry: false, use_chat_completions_url_for_anthropic_messages: true}
general_settings: {dangerously_permit_weak_or_unset_master_key: true}
"""
_FERRO = "strategy: {mode: fallback}\ntargets: [{virtual_key: openai}]\n"


@dataclass(frozen=True)
class Other:
    """A gateway of somebody else. In `command`, `headers` and `env`, `{port}`, `{upstream}` (http://host:port) and
    `{home}` (its folder) are filled in.
    """

    package: str
    command: Sequence[str]
    model: str = "stub"  # where it serves no names it does not know
    npm: bool = False
    headers: Sequence[str] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)  # written to its home

    def install(self, home: Path) -> None:
        """Install the package into `home`, unless it stands there. Raises SystemExit if that fails."""
        mark = home / ".installed"
        home.mkdir(parents=True, exist_ok=True)
        for name, text in self.files.items():
            (home / name).write_text(text)
        if mark.exists() and mark.read_text() == self.package:
            return
        if self.npm:
            steps = [["npm", "install", "--no-audit", "--no-fund", "--prefix", str(home), self.package]]
        else:
            steps = [[sys.executable, "-m", "venv", str(home)], [f"{home}/bin/pip", "install", "-q", self.package]]
        for step in steps:
            done = subprocess.run(step, capture_output=True, text=True, check=False)
            if done.returncode:
                raise SystemExit(f"{' '.join(step)}:\n{done.stderr[-2000:]}")
        mark.write_text(self.package)


OTHERS = {
    "Ferro": Other(
        "ferrogw==1.5.10",
        ["{home}/bin/ferrogw", "serve"],
        model="gpt-4o",
        env={
            "OPENAI_BASE_URL": "{upstream}",
            "MASTER_KEY": KEY,
            "GATEWAY_CONFIG": "{home}/config.yaml",
            "RATE_LIMIT_RPS": "1000000",
            "RATE_LIMIT_BURST": "1000000",
        },
        files={"config.yaml": _FERRO},
    ),
    "Portkey": Other(
        "@portkey-ai/gateway@1.15.2",
        ["node", "{home}/node_modules/@portkey-ai/gateway/build/start-server.js", "--port={port}"],
        npm=True,
        headers=["x-portkey-provider: openai", "x-portkey-custom-host: {upstream}/v1"],
    ),
    "LiteLLM": Other(
        "litellm[proxy]==1.108.7",
        ["{home}/bin/litellm", "--config", "{home}/config.yaml", "--port", "{port}"],
        env={"BENCH_UPSTREAM": "{upstream}/v1", "LITELLM_LOCAL_MODEL_COST_MAP": "True"},
        files={"config.yaml": _LITELLM},
    ),
}

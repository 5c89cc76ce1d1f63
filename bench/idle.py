"""What a processor takes that nobody asks anything: memory and CPU, as `extproc up` starts it.

python -m bench.idle            with the gateway.yaml of this folder
"""

from __future__ import annotations

import argparse
import contextlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from bench.arms import cpu_seconds
from bench.harness import Interpreter

SETTINGS = Path("gateway.yaml")


def idle(
    settings: Path = SETTINGS,
    seconds: float = 20.0,
    python: Interpreter = Interpreter(),  # noqa: B008 - it is frozen
) -> Mapping[str, float]:
    """MB resident (`Rss`) and proportional (`Pss`: pages shared with others count in part), and ms of CPU a second."""
    with tempfile.TemporaryDirectory(prefix="bench-idle-") as folder:
        command = [python.path, "-m", "extproc", "serve", "--config", str(settings.absolute())]
        command += ["--socket", f"{folder}/p.sock", "--secrets", f"{folder}/secrets", "--drain-notice", "0"]
        here = {**python.environment, "EXTPROC_DEMO_KEY": "sk-gw-demo"}
        process = subprocess.Popen(command, cwd=folder, env=here, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
        try:
            assert process.stderr is not None
            ready = any(b"extproc is ready" in line for line in process.stderr)
            if not ready:
                raise SystemExit("the processor did not start")
            time.sleep(2)
            used = cpu_seconds(process.pid)
            time.sleep(seconds)
            used = cpu_seconds(process.pid) - used
            return {**_memory(process.pid), "ms/s": used / seconds * 1000}
        finally:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
            process.kill()


def _memory(pid: int) -> dict[str, float]:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    found = {name: int(rest.split()[0]) / 1e3 for name, _, rest in (line.partition(":") for line in lines)}
    return {name: found[name] for name in ("Rss", "Pss")}


def sentence(found: Mapping[str, float]) -> str:
    memory = f"{found['Rss']:.1f} MB resident, {found['Pss']:.1f} MB proportional"
    return f"idle processor: {memory}, {found['ms/s']:.2f} ms of CPU a second"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("-c", "--config", type=Path, default=SETTINGS)
    parser.add_argument("--python", default=sys.executable, help="the interpreter of the processor (default: this one)")
    parser.add_argument("--seconds", type=float, default=20.0, help="to measure the CPU over (default: 20)")
    options = parser.parse_args()
    print(sentence(idle(options.config, options.seconds, Interpreter(options.python))))

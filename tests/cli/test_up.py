from __future__ import annotations

import signal
import subprocess
import threading
from pathlib import Path

import pytest

from extproc.cli import _supervise, up


@pytest.fixture
def signals():
    """SIGTERM as `extproc up` takes it. Everything is as before at the end."""
    held = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    before = signal.signal(signal.SIGTERM, up._interrupt)
    yield
    signal.signal(signal.SIGTERM, before)
    signal.pthread_sigmask(signal.SIG_SETMASK, held)


@pytest.mark.usefixtures("signals")
def test_a_signal_within_the_start_of_a_process_leaves_none_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    binary = tmp_path / "envoy"
    binary.write_text("#!/bin/sh\nexec sleep 60\n")
    binary.chmod(0o755)
    execute, pids = subprocess.Popen._execute_child, []

    def interrupted(process, *words):
        execute(process, *words)
        pids.append(process.pid)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGTERM)  # no thread of another test takes it

    monkeypatch.setattr(subprocess.Popen, "_execute_child", interrupted)
    children: list[up.Launched] = []
    with pytest.raises(KeyboardInterrupt):
        up._validate(children, str(binary), tmp_path / "envoy.json")
    _supervise.stop(up._known(children))
    children[0].process.communicate()  # closes the pipes
    assert len(pids) == 1
    assert not Path(f"/proc/{pids[0]}").exists()

"""A PostgreSQL for a test, on a free port of loopback, ended by pid. It runs as the user nobody when the test runs as
root.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

USER = "gateway"


class PostgresServer:
    def __init__(self, *options: str) -> None:
        self._options = options
        self._bin = binaries()
        self._user = (
            next((name for name in ("postgres", "nobody") if _exists(name)), None) if not os.geteuid() else None
        )
        self.folder = Path(tempfile.mkdtemp(prefix="extproc-postgres-"))
        if self._user is not None:
            os.chown(self.folder, pwd.getpwnam(self._user).pw_uid, -1)
        with socket.create_server(("127.0.0.1", 0)) as held:
            self.port: int = held.getsockname()[1]
        self._process: subprocess.Popen[bytes] | None = None
        arguments = ["-D", str(self._data), "-U", USER, "--auth=trust", "-E", "UTF8", "--locale=C", "--no-sync"]
        subprocess.run([self._bin / "initdb", *arguments], user=self._user, check=True, capture_output=True, cwd="/")

    @staticmethod
    def need() -> None:
        import pytest

        if binaries() is None:
            pytest.skip("there are no server binaries of PostgreSQL: apt-get install postgresql")

    @property
    def _data(self) -> Path:
        return self.folder / "data"

    def url(self, database: str = "postgres") -> str:
        return f"postgresql://{USER}@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        options = ["-D", str(self._data), "-p", str(self.port), "-k", str(self.folder), "-h", "127.0.0.1"]
        options += ["-c", "fsync=off", *self._options]
        deadline = time.monotonic() + 60
        while not self._listens():
            if self._process is None or self._process.poll() is not None:  # or the previous one has not fully ended yet
                with (self.folder / "log").open("ab") as out:
                    self._process = subprocess.Popen(
                        [self._bin / "postgres", *options], user=self._user, stdout=out, stderr=out, cwd="/"
                    )
            assert time.monotonic() < deadline, (self.folder / "log").read_text()
            time.sleep(0.1)

    def _listens(self) -> bool:
        ready = [self._bin / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        return self._process is not None and subprocess.run(ready, check=False).returncode == 0

    def create(self, database: str, *options: str) -> str:
        """Create a database. Returns its URL."""
        self.sql(f'CREATE DATABASE "{database}" {" ".join(options)}')
        return self.url(database)

    def sql(self, statement: str, database: str = "postgres") -> str:
        command = [self._bin / "psql", "-X", "-q", "-t", "-A", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1"]
        command += ["-p", str(self.port), "-U", USER, "-c", statement, database]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def kill(self) -> None:
        """Kill it as a power cut would, except that the kernel keeps its data."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Stop it and remove its data."""
        self._end(signal.SIGQUIT)  # its data is not needed
        shutil.rmtree(self.folder, ignore_errors=True)

    def _end(self, number: int) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(number)
            process.wait(30)


def binaries() -> Path | None:
    """The folder of the newest server's programs."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"), key=lambda path: float(path.parts[-3]))
    on_path = shutil.which("postgres")
    return found[-1].parent if found else Path(on_path).parent if on_path else None


def _exists(user: str) -> bool:
    try:
        pwd.getpwnam(user)
    except KeyError:
        return False
    return True

"""`extproc drain` against an Envoy of a few lines."""

import signal
import subprocess
import sys
import threading
import time
from functools import partial
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingUnixStreamServer

import pytest

from extproc.cli import _drain


class Admin(ThreadingUnixStreamServer):
    """Envoy's admin socket. `opened` are the open requests that it reports; `posts` the paths that it was told."""

    def __init__(self, path):
        super().__init__(str(path), Handler)
        self.opened, self.posts, self.looks = 0, [], 0


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        self.server.posts.append(self.path)
        self._say(b"OK\n")

    def do_GET(self):
        self.server.looks += 1
        self._say(f"http.public.downstream_rq_active: {self.server.opened}\n".encode())

    def _say(self, body):
        """In chunks, as Envoy does."""
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.write(b"%x\r\n%b\r\n%x\r\n%b\r\n0\r\n\r\n" % (3, body[:3], len(body) - 3, body[3:]))

    def address_string(self):
        return "unix"

    def log_message(self, *_):
        pass


@pytest.fixture
def admin(tmp_path):
    with Admin(tmp_path / "admin.sock") as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def drain(path, notice=0.0, grace=30.0, *more):
    command = [sys.executable, "-I", "-S", *_drain.command(str(path), notice, grace), *more]
    begin = partial(signal.pthread_sigmask, signal.SIG_BLOCK, _drain.SIGNALS)  # as `take_over` does
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=begin)  # noqa: PLW1509


def until(condition):
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_it_waits_for_open_requests_and_no_longer(admin, tmp_path):
    admin.opened = 2
    with drain(tmp_path / "admin.sock") as process:
        until(lambda: admin.looks > 2)
        assert process.poll() is None
        admin.opened = 0
        assert process.wait(10) == 0
    assert admin.posts == ["/drain_listeners?graceful&skip_exit"]


def test_an_answer_in_chunks_is_read_whole(admin, tmp_path):
    text = _drain.ask(str(tmp_path / "admin.sock"), "GET", "/stats")
    assert text == "http.public.downstream_rq_active: 0\n"


def test_the_end_of_the_grace_and_a_second_signal_leave_requests_open(admin, tmp_path):
    admin.opened = 1
    with drain(tmp_path / "admin.sock", 0.0, 0.1) as process:
        assert process.wait(10) == 1
        assert "open requests are cut" in process.stderr.read()
    with drain(tmp_path / "admin.sock", 0.0, 600.0) as process:
        until(lambda: len(admin.posts) == 2)
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 1


def test_a_pause_is_no_second_signal(admin, tmp_path):
    """Ctrl-Z and `docker pause` ended the drain, and cut the open requests."""
    admin.opened = 1
    with drain(tmp_path / "admin.sock") as process:
        until(lambda: admin.looks > 2)
        for _ in range(3):
            process.send_signal(signal.SIGSTOP)
            time.sleep(0.2)
            process.send_signal(signal.SIGCONT)
            time.sleep(0.05)
        assert process.poll() is None
        admin.opened = 0
        assert process.wait(10) == 0


def test_with_wait_it_begins_at_a_signal_and_without_an_envoy_it_is_done(admin, tmp_path):
    with drain(tmp_path / "admin.sock", 0.0, 30.0, "wait") as process:
        assert admin.posts == []
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
    assert len(admin.posts) == 1
    with drain(tmp_path / "nothing.sock") as process:
        assert process.wait(10) == 0
        assert "nothing.sock (No such file or directory)" in process.stderr.read()


def test_an_envoy_that_cannot_be_asked_is_not_taken_for_drained(tmp_path):
    path = tmp_path / ("x" * 120)  # longer than the path of a socket may be, for every user
    with drain(path) as process:
        assert process.wait(10) == 1
        assert "Envoy is not drained" in process.stderr.read()

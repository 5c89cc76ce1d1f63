"""Copies of the audit trail in a file, at a collector and in a bucket: each entry once, in order, over failures."""

import json
from http.server import BaseHTTPRequestHandler

import pytest

from extproc.money.ledger import open_ledger
from extproc.money.ledger.trail import Event, read_line, verify
from extproc.operate.telemetry import copies
from extproc.operate.telemetry.copies import Copies
from extproc.settings.audit import AuditSettings
from tests.doubles.bucket import serve_bucket, served

NOW = 1_795_000_000.0


class Clock:
    now = NOW

    def __call__(self):
        return self.now


@pytest.fixture
def trail():
    ledger = open_ledger("memory:")
    yield ledger.trail
    ledger.close()


def add(trail, first, count):
    trail.append([Event(str(n), NOW, {"event": {"id": str(n)}, "text": "é"}) for n in range(first, first + count)])


def numbers(lines):
    return [entry.number for entry in verify(read_line(line)[0] for line in lines)]


def test_a_file_gets_each_entry_once_over_deaths_and_rotations(trail, tmp_path):
    path = tmp_path / "deep" / "audit.jsonl"
    settings = AuditSettings(file=str(path))
    add(trail, 0, 3)
    Copies(trail).turn(settings)
    assert path.stat().st_mode & 0o777 == 0o600
    add(trail, 3, 2)
    [_, line] = [entry.line("") for entry in trail.after(3, 9)]
    previous = trail.latest(1, 4)[0].hash
    with path.open("a") as file:  # a process wrote entry 4 and half of entry 5, and died before it could say so
        file.write(trail.after(3, 1)[0].line(previous) + "\n" + line[:20])
    Copies(trail).turn(settings)
    assert numbers(path.read_text().splitlines()) == [1, 2, 3, 4, 5]
    path.rename(tmp_path / "audit.jsonl.1")
    add(trail, 5, 2)
    Copies(trail).turn(settings)
    assert numbers(path.read_text().splitlines()) == [6, 7]


def test_a_collector_that_was_away_gets_the_entries_later(trail, caplog):
    heard, answers = [], [503]

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            status = answers.pop() if answers else 200
            if status == 200:
                [scope] = body["resourceLogs"][0]["scopeLogs"]
                heard.extend(record["body"]["stringValue"] for record in scope["logRecords"])
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_):
            pass

    add(trail, 0, 250)
    with served(Collector) as url:
        shipped = Copies(trail)
        shipped.turn(AuditSettings(otlp=url))
        assert "takes nothing: status 503" in caplog.text
        assert heard == []
        shipped.turn(AuditSettings(otlp=url))
        shipped.turn(AuditSettings(otlp=url))
    assert numbers(heard) == list(range(1, 251))


def test_objects_of_a_bucket_are_written_once(trail, monkeypatch):
    monkeypatch.setenv("AUDIT_ID", "id")
    monkeypatch.setenv("AUDIT_SECRET", "secret")
    monkeypatch.setattr(copies, "_OBJECT_EVERY", 60.0)
    key = {"access_key_id": "env:AUDIT_ID", "secret_access_key": "env:AUDIT_SECRET"}
    with serve_bucket("id") as (url, objects):
        settings = AuditSettings(bucket={"name": "trail", "endpoint": url, **key})
        clock = Clock()
        shipped = Copies(trail, clock)
        add(trail, 0, 3)
        shipped.turn(settings)
        add(trail, 3, 2)
        shipped.turn(settings)
        assert list(objects) == ["trail/audit/000000000001.jsonl"], "an object a minute"
        previous = trail.latest(1, 4)[0].hash
        objects["trail/audit/000000000004.jsonl"] = f"{trail.after(3, 1)[0].line(previous)}\n".encode()
        clock.now += 60  # a process had written entry 4 alone, and died
        shipped.turn(settings)
    lines = [line for name in sorted(objects) for line in objects[name].decode().splitlines()]
    assert numbers(lines) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("more", "error"),
    [
        ({"file": " "}, "file is a path"),
        ({"otlp": "collector"}, "should match pattern"),
        ({"bucket": {"name": "A", "access_key_id": "env:A", "secret_access_key": "env:B"}}, "a bucket's name"),
        (
            {
                "bucket": {
                    "name": "abc",
                    "access_key_id": "env:A",
                    "secret_access_key": "env:B",
                    "endpoint": "http://a/b",
                }
            },
            "without a path",
        ),
    ],
)
def test_settings_that_cannot_work_are_refused(more, error):
    with pytest.raises(ValueError, match=error):
        AuditSettings(**more)

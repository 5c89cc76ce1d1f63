"""`extproc usage --format focus`: days of a ledger as files, to standard output, folders and buckets."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import json
import os
import subprocess
import sys
import threading
import time
import tracemalloc
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import pytest

from extproc.cli import _export
from extproc.money.ledger import Row
from extproc.money.ledger.focus import COLUMNS
from tests.admin.ledgers import ledger_served
from tests.doubles.bucket import serve_bucket

NOON = datetime(2026, 11, 2, 12, tzinfo=UTC).timestamp()
DAYS = ("--start", "2026-11-02", "--end", "2026-11-04")


def row(number, **more):
    fields = {
        "consumer": f"c{number % 7}",
        "team": "=team" if number % 2 else "",
        "operation": "chat",
        "cost": number + 1,
    }
    fields |= {"provider": "openai", "provider_model": f"m{number % 3}", "input_tokens": number, "output_tokens": 1}
    fields |= {"usage_source": "provider", "labels": {"run": f"r{number % 2}"}, **more}
    return Row(id=f"x{number}", time=NOON + 86_400 * (number % 2) + number, status=200, **fields)


ROWS = [*(row(number) for number in range(100)), row(100, provider="", cost=0, input_tokens=0, output_tokens=0)]


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    with ledger_served(tmp_path_factory.mktemp("ledger") / "ledger.db", ROWS) as address:
        yield address


@pytest.fixture(params=["folder", "bucket"])
def place(request, tmp_path, monkeypatch):
    """Options that name a place, and its files by name."""
    if request.param == "folder":
        folder = tmp_path / "out"
        files = lambda: {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*.*")}  # noqa: E731
        yield ("--to", folder), files
        return
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKID")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    with serve_bucket("AKID") as (endpoint, objects):
        files = lambda: {name.removeprefix("bills/llm/"): data for name, data in objects.items()}  # noqa: E731
        yield ("--to", "s3://bills/llm/", "--endpoint", endpoint), files


def read(data):
    return list(csv.DictReader(io.StringIO(data.decode())))


def named(files, day):
    """Rows of the files that a day's manifest names, which say so themselves."""
    manifest = json.loads(files[f"{day}/manifest.json"])
    rows = []
    for file in manifest["files"]:
        data = files[file["path"]]
        assert (len(data), hashlib.sha256(data).hexdigest()) == (file["bytes"], file["sha256"])
        rows += read(data)
    assert manifest["rows"] == len(rows) == sum(file["rows"] for file in manifest["files"])
    assert Decimal(manifest["billed_cost"]) == sum(Decimal(row["BilledCost"]) for row in rows)
    return rows


def test_all_days_are_one_csv_whose_costs_are_those_of_the_ledger(run, url, monkeypatch):
    arguments = ("usage", "--url", url, "--format", "focus", *DAYS, "--group-by", "consumer,label.run")
    status, whole, err = run(*arguments)
    rows = read(whole.encode())
    assert (status, err, list(rows[0])) == (0, "", list(COLUMNS))
    assert sum(Decimal(row["BilledCost"]) for row in rows) == sum(each.cost for each in ROWS) * Decimal("1e-9")
    assert sum(int(row["x_Requests"]) for row in rows) == 100  # a refusal is no charge
    assert {row["Tags"] for row in rows} == {'{"label.run":"r0"}', '{"label.run":"r1"}'}
    assert {row["SubAccountName"] for row in rows} == {"", "'=team"}  # no formula
    # A gateway cuts its reports: the same rows come in parts.
    monkeypatch.setattr("extproc.money.ledger.usage.MAX_BUCKETS", 7)
    status, parts, _ = run(*arguments)
    assert (status, sorted(parts.splitlines())) == (0, sorted(whole.splitlines()))
    status, _, err = run(*arguments[:-1], "label.run", "--only", "consumer=c1", "--only", "consumer=c2")
    assert status == 0
    monkeypatch.setattr("extproc.money.ledger.usage.MAX_BUCKETS", 2)
    status, _, err = run(*arguments)
    assert (status, "more than 10,000 values of consumer" in err) == (1, True)


def test_a_day_is_exported_once(run, url, place, monkeypatch):
    options, files = place
    monkeypatch.setattr(_export, "PART", 10)
    arguments = ("usage", "--url", url, "--format", "focus", *DAYS, *options)
    status, out, err = run(*arguments)
    assert (status, err) == (0, "")
    assert [line.partition(",")[0] for line in out.splitlines()] == ["2026-11-02: 21 rows", "2026-11-03: 21 rows"]
    first = files()
    assert len(first) == 8  # three parts and a manifest a day
    rows = [*named(first, "2026-11-02"), *named(first, "2026-11-03")]
    assert sum(Decimal(row["BilledCost"]) for row in rows) == sum(each.cost for each in ROWS) * Decimal("1e-9")
    status, out, _ = run(*arguments)
    assert (status, out.splitlines()[0], files()) == (0, "2026-11-02: exported before", first)


def test_an_export_that_ends_before_its_manifest_is_done_again(run, url, place, monkeypatch):
    options, files = place
    monkeypatch.setattr(_export, "PART", 10)
    kinds = (_export.Folder, _export.Below)
    whole = [kind.create for kind in kinds]
    for kind, create in zip(kinds, whole, strict=True):

        def ended(self, name, data, create=create):
            if name.endswith("0002.csv"):
                raise OSError("no space left")
            return create(self, name, data)

        monkeypatch.setattr(kind, "create", ended)
    arguments = ("usage", "--url", url, "--format", "focus", *DAYS, *options)
    status, out, err = run(*arguments)
    assert (status, out, err) == (1, "", "no space left\n")
    assert not [name for name in files() if "manifest" in name]
    for kind, create in zip(kinds, whole, strict=True):
        monkeypatch.setattr(kind, "create", create)
    assert run(*arguments)[0] == 0
    assert len(named(files(), "2026-11-02")) == 21


BY_ROW = "import sys; from extproc.cli import _export, main; _export.PART = 1; sys.exit(main())"
"""The command line with a file for each row, so that there is time to kill it."""


def counted(files):
    """The number of files; a file may get its name while they are read."""
    while True:
        with contextlib.suppress(FileNotFoundError):
            return len(files())


@pytest.mark.parametrize("kills", [[3], pytest.param([1, 2, 8, 14, 20, 21], marks=pytest.mark.exhaustive)])
def test_a_day_whose_exports_are_killed_is_exported_once(run, url, place, kills):
    options, files = place
    arguments = ("usage", "--url", url, "--format", "focus", *DAYS, *options)
    for parts in kills:
        export = subprocess.Popen([sys.executable, "-c", BY_ROW, *map(str, arguments)], stdout=subprocess.DEVNULL)
        begun, deadline = counted(files), time.monotonic() + 30
        while counted(files) < begun + parts and export.poll() is None and time.monotonic() < deadline:
            time.sleep(0.001)
        export.kill()
        export.wait()
    assert run(*arguments)[0] == 0
    for day in ("2026-11-02", "2026-11-03"):
        assert len(named(files(), day)) == 21
    finished = files()
    assert run(*arguments)[0] == 0
    assert files() == finished


def test_of_many_exports_at_once_one_counts(url, place):
    options, files = place
    target = dict(zip(options[::2], options[1::2], strict=True))
    where = _export.place_of(str(target["--to"]), "", target.get("--endpoint", ""))
    asked = _export.Asked(_export.AdminClient(url), "main")
    done = []
    threads = [
        threading.Thread(target=lambda: done.append(_export.export(asked, date(2026, 11, 2), "focus", where)))
        for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    [winner] = filter(None, done)
    assert json.loads(files()["2026-11-02/manifest.json"]) == winner
    assert len(named(files(), "2026-11-02")) == 21


@pytest.mark.parametrize(
    ("now", "start", "end", "delay", "days"),
    [
        ("2026-11-04T01:59:59", "2026-11-02", None, 2, [2]),
        ("2026-11-04T02:00:00", "2026-11-02", None, 2, [2, 3]),
        ("2026-11-04T02:00:00", "2026-11-02", "2026-11-03", 2, [2]),
        ("2026-11-04T02:00:00", "2026-11-05", None, 0, []),
        ("2026-11-09T02:00:00", None, None, 2, [2, 3, 4, 5, 6, 7, 8]),
        ("2026-11-09T02:00:00", None, None, 48, [2, 3, 4, 5, 6]),
    ],
)
def test_days_are_due_when_they_have_passed(now, start, end, delay, days):
    moments = [text and date.fromisoformat(text) for text in (start, end)]
    found = _export.due(*moments, delay, datetime.fromisoformat(now).replace(tzinfo=UTC))
    assert [day.day for day in found] == days


def test_a_daily_export_goes_on_after_a_failure(run, url, tmp_path, monkeypatch):
    pauses = []

    def sleep(seconds):
        pauses.append(seconds)
        monkeypatch.setattr(_export.Folder, "read", reading)
        if len(pauses) == 3:
            raise KeyboardInterrupt

    def failing(self, name):
        raise OSError("the disk is away")

    reading = _export.Folder.read
    monkeypatch.setattr(_export.Folder, "read", failing)
    monkeypatch.setattr(_export.time, "sleep", sleep)
    arguments = ("usage", "--url", url, "--format", "focus", "--to", tmp_path, "--start", "2026-11-02", "--daily")
    monkeypatch.setattr("extproc.cli.usage.due", lambda start, *_: [start])
    status, out, err = run(*arguments)
    assert (status, pauses) == (130, [_export.RETRY, 3600.0, 3600.0])
    assert out.startswith("2026-11-02: 21 rows")
    assert len(out.splitlines()) == 1
    assert err == "the disk is away; tried again in 300 s\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--to", "x"], "--to and --daily need --format focus"),
        (["--format", "focus", "--daily"], "--daily needs --to and takes no --end"),
        (["--format", "focus", "--to", "x", "--daily", "--end", "2026-11-02"], "--daily needs --to and takes no --end"),
        (["--format", "focus", "--start", "yesterday"], "--start is a date with this format"),
        (["--format", "focus", "--account", "a\nb"], "--account has up to 128"),
        (["--format", "focus", "--to", "s3://B"], "a bucket's name has 3 to 63"),
        (["--format", "focus", "--to", "s3://bills"], "a bucket needs AWS_ACCESS_KEY_ID"),
        (["--format", "focus", "--to", "s3://bills", "--endpoint", "minio"], "--endpoint is the address of the store"),
        (["--format", "focus-parquet", "--to", "x"], "needs the extra 'parquet': pip install 'llm-extproc[parquet]'"),
    ],
)
def test_options_that_do_not_fit_are_refused(run, arguments, message, monkeypatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID", raising=False)
    status, out, err = run("usage", "--url", "http://127.0.0.1:1", *arguments)
    assert (status, out) == (1, "")
    assert message in err


@pytest.mark.parametrize("count", [20_000, pytest.param(1_000_000, marks=pytest.mark.exhaustive)])
def test_the_rows_of_a_day_are_in_memory_a_part_at_a_time(count, monkeypatch):
    class Nowhere:
        def create(self, name, data):
            return True

    monkeypatch.setattr(_export, "PART", 1_000)
    row = {"BilledCost": Decimal(1), "Tags": "t" * 200}
    tracemalloc.start()
    rows = (dict(row) for _ in range(count))
    files = list(_export._write_parts(rows, "d", _export.FORMATS["focus"], Nowhere()))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert sum(file["rows"] for file in files) == count
    assert peak < 4 << 20


VALIDATOR = Path(os.environ.get("FOCUS_VALIDATOR", ""))
NAMED_OTHERWISE = {"InvoiceIssuerName": "InvoiceIssuer", "ProviderName": "Provider", "PublisherName": "Publisher"}
NAMED_OTHERWISE |= {"ResourceId": "ResourceID"}
"""Columns that focus-validator 1.0 looks for under other names than the specification's. Its rule about `SkuPriceId`
reads `ChargeType`, too, a column of FOCUS 0.5.
"""


@pytest.mark.focus
@pytest.mark.parametrize("format", ["focus", "focus-parquet"])
def test_focus_validator_passes(format, url, tmp_path):
    """With the interpreter of the validator, which has pyarrow."""
    python = VALIDATOR.with_name("python")
    subprocess.run(
        [python, "-m", "extproc", "usage", "--url", url, "--format", format, *DAYS, "--to", tmp_path], check=True
    )
    manifest = json.loads((tmp_path / "2026-11-02/manifest.json").read_text())
    [part] = [tmp_path / file["path"] for file in manifest["files"]]
    code = (
        "import sys, pandas as pd; path, out, names = sys.argv[1], sys.argv[2], eval(sys.argv[3]);"
        "data = pd.read_parquet(path) if path.endswith('parquet') else pd.read_csv(path, dtype=str);"
        "print(len(data), data['BilledCost'].astype(float).sum());"
        "data['ChargeType'] = data['ChargeCategory'];"
        "data.rename(columns=names).to_csv(out, index=False, date_format='%Y-%m-%dT%H:%M:%SZ')"
    )
    out = tmp_path / "renamed.csv"
    found = subprocess.run(
        [python, "-c", code, part, out, repr(NAMED_OTHERWISE)], check=True, capture_output=True, text=True
    )
    assert found.stdout.split()[0] == "21"
    assert float(found.stdout.split()[1]) == pytest.approx(float(manifest["billed_cost"]))
    command = [VALIDATOR, "--validate-version", "1.0", "--data-file", out]
    root = python.parent.parent.glob("lib/python*/site-packages")  # it reads files beside itself by relative names
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=next(root))
    assert "Validation succeeded." in done.stdout, done.stdout + done.stderr

"""Files of bills: what their words mean, what cannot be read, and how much of them is in memory."""

from __future__ import annotations

import csv
import os
import subprocess
import tracemalloc
from decimal import Decimal
from pathlib import Path

import pytest

from extproc.money.reconcile import Billed, BillError, kind_of
from extproc.money.reconcile.bills import bills
from extproc.money.reconcile.files import rows
from tests.reconcile.invoice import MODELS, Invoice

RANGE = ("--from", "2026-11-01", "--to", "2026-12-01", "--format", "json")


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ("cached input", "cached"),
        ("cache_creation.ephemeral_1h_input_tokens", "write"),
        ("cache-write-input-token-count", "write"),
        ("ShortCo Cd Wr Std Gl 1M Tokens", "write"),
        ("ccchd-inp-glbl Tokens", "cached"),
        ("Opt Gl 1M Tokens", "output"),
        ("MP:USE1_OutputTokenCount-Units", "output"),
        ("glbl Tokens", "input"),
        (" Text Input Caching Storage", "fee"),
        ("web search tool calls", "fee"),
    ],
)
def test_words_of_providers_name_a_kind(words, kind):
    assert kind_of(words) == kind


@pytest.mark.parametrize(
    ("report", "name", "text", "message"),
    [
        ("openai", "a.json", '{"data": 1}', "this is no page of https://platform.openai.com"),
        ("openai", "a.json", "{", "Input data was truncated"),
        ("anthropic", "a.jsonl", "[1]\n", "line 1 is no JSON object"),
        (
            "azure",
            "a.csv",
            "Date,ChargeType,ConsumedService\n11/01/2026,Usage,microsoft.cognitiveservices\n",
            "has no cost",
        ),
        (
            *("azure", "a.csv"),
            "Date,ConsumedService,CostInBillingCurrency,BillingCurrencyCode\n2026-11-02,Microsoft.CognitiveServices,1,EUR\n",
            "the bill is in EUR; the ledger is in USD",
        ),
        (
            *("bedrock", "a.csv"),
            "line_item_usage_start_date,line_item_line_item_type,line_item_product_code\nsoon,Usage,AmazonBedrock\n",
            "'soon' is no day",
        ),
        ("gcp", "a.csv.gz", "no gzip", "Not a gzipped file"),
        ("gcp", "a.txt", "", "a bill is a .csv"),
        ("gcp", "missing.csv", None, "No such file"),
        ("gcp", "a.parquet", "", "needs the extra 'parquet': pip install"),
    ],
)
def test_a_bill_that_cannot_be_read_is_a_clear_error(report, name, text, message, *, run, tmp_path):
    if text is not None:
        (tmp_path / name).write_text(text)
    status, out, err = run(report, *RANGE, "--file", tmp_path / name, "--url", "http://127.0.0.1:1", "--provider", "p")
    assert (status, out) == (2, "")
    assert message in err


@pytest.mark.parametrize("lines", [10_000, pytest.param(1_000_000, marks=pytest.mark.exhaustive)])
def test_a_bill_of_many_lines_stays_small_in_memory(lines, tmp_path):
    names = [f"USE1-{model}-input-tokens" for model in MODELS["bedrock"].values()]
    path = tmp_path / "cur.csv"
    with path.open("w") as file:
        writer = csv.writer(file)
        line = "line_item_"
        ours = ("usage_start_date", "line_item_type", "product_code", "usage_type", "usage_account_id", "usage_amount")
        writer.writerow([*(line + name for name in (*ours, "unblended_cost")), "pricing_unit"])
        for number in range(lines):
            day = f"2026-11-{number % 28 + 1:02}T00:00:00Z"
            writer.writerow([day, "Usage", "AmazonBedrock", names[number % 4], "1", number % 97, "0.0001", "1K tokens"])
    billed = Billed("main", "2026-11-01", "2026-12-01")
    tracemalloc.start()
    for line in bills()["bedrock"].lines(rows(path)):
        billed.add(line)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert sum((charges.total for charges in billed.cells.values()), Decimal(0)) == lines * Decimal("0.0001")
    assert len(billed.cells) == 28  # a model a day: 4 divides 28
    assert peak < 4 << 20


def test_a_line_of_json_has_a_bound(monkeypatch, tmp_path):
    monkeypatch.setattr("extproc.money.reconcile.files.MAX_LINE", 20)
    (tmp_path / "a.jsonl").write_text('{"a": 1}\n' + " " * 30 + "\n")
    with pytest.raises(BillError, match="a line is longer than"):
        list(rows(tmp_path / "a.jsonl"))


@pytest.mark.focus
def test_a_bill_in_parquet_is_that_in_csv(tmp_path):
    """With an interpreter that has pyarrow, as `make focus` makes it."""
    invoice = Invoice("bedrock")
    invoice.bill(
        "2026-11-02", "1", next(iter(MODELS["bedrock"])), {"input": 1234, "cached": 5, "write": 6, "output": 78}
    )
    invoice.write(tmp_path)
    code = (
        "import sys, pandas; from pathlib import Path; from extproc.money.reconcile.bills import bills;"
        "from extproc.money.reconcile.files import rows; there = Path(sys.argv[1]);"
        "data = pandas.read_csv(there / '1-cur.csv', parse_dates=['line_item_usage_start_date']);"
        "data.to_parquet(there / '1.parquet');"
        "read = lambda name: [line._replace(keys=(), cost=float(line.cost), quantity=float(line.quantity))"
        " for line in bills()['bedrock'].lines(rows(there / name))];"
        "found = read('1.parquet'); assert found == read('1-cur.csv'), found; print(len(found))"
    )
    python = Path(os.environ["FOCUS_VALIDATOR"]).with_name("python")
    assert subprocess.run([python, "-c", code, tmp_path], check=True, capture_output=True, text=True).stdout == "4\n"

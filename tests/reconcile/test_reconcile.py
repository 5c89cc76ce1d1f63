"""`extproc reconcile`: the ledger of a gateway beside the invoice of a provider, with planted differences."""

from __future__ import annotations

import json
import random
from datetime import datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.money.ledger import Row
from extproc.money.reconcile import TOKENS, Billed, BillError, Cell, Charges, Line, family
from extproc.money.reconcile.compare import CAUSES, Book, Charged, compare
from tests.reconcile.invoice import KINDS, MODELS, Invoice, serve

DAYS = ("2026-11-02", "2026-11-03")
RANGE = ("--from", "2026-11-01", "--to", "2026-12-01", "--format", "json")


class Gateway:
    """A gateway's ledger and its admin API: requests are forwarded to the invoice's provider, and recorded."""

    def __init__(self, invoice: Invoice, key: str) -> None:
        self.invoice, self.key, self.rows = invoice, key, []
        self.chance = random.Random(7)

    def draw(self):
        most = {"input": 5000, "cached": 3000, "write": 900, "output": 700}
        return {kind: self.chance.randrange(1, most[kind]) for kind in KINDS}

    def record(self, day, model, tokens, cost, **more):
        """A row of the ledger. `cost` in USD, rounded up to whole nano-USD."""
        nano = None if cost is None else -int(-cost * 10**9 // 1)
        fields = {"provider": "main", "provider_model": model, "usage_source": "provider", "status": 200, **more}
        self.rows.append(
            Row(
                id=f"x{len(self.rows)}",
                time=datetime.fromisoformat(f"{day}T10:00:00+00:00").timestamp() + len(self.rows) % 40_000,
                input_tokens=sum(tokens.get(kind, 0) for kind in KINDS[:3]),
                cached_tokens=tokens.get("cached", 0),
                cache_write_tokens=tokens.get("write", 0),
                output_tokens=tokens.get("output", 0),
                cost=nano,
                **fields,
            )
        )

    def forward(self, day, model, count=1, **more):
        for _ in range(count):
            tokens = self.draw()
            self.record(day, model, tokens, self.invoice.bill(day, self.key, model, tokens), **more)


def plant(gateway: Gateway, requests: int) -> dict[str, Decimal]:
    """Requests with differences of each cause, and the USD of each: a model and day have one or two causes."""
    first, second, third, fourth = MODELS[gateway.invoice.report]
    monday, tuesday = DAYS
    bill, key = gateway.invoice.bill, gateway.key
    planted = dict.fromkeys(CAUSES, Decimal(0))
    for model in (first, second):
        gateway.forward(monday, model, requests)
    for _ in range(30):  # one whose price is stale by a tenth
        tokens = gateway.draw()
        cost = bill(monday, key, third, tokens)
        gateway.record(monday, third, tokens, cost * 9 / 10)
        planted["stale_price"] += cost / 10
    for _ in range(20):  # one without a price
        tokens = gateway.draw()
        planted["unknown_price"] += bill(monday, key, fourth, tokens)
        gateway.record(monday, fourth, tokens, None)
    for _ in range(2):  # the bill does not have them yet
        tokens = gateway.draw()
        planted["not_billed"] -= gateway.invoice.price(first, tokens)
        gateway.record(monday, first, tokens, gateway.invoice.price(first, tokens))
    gateway.forward(tuesday, first, 40)
    for _ in range(3):  # a process was killed: the rows have no usage
        planted["rows_without_usage"] += bill(tuesday, key, first, {"input": 900, "output": 40})
        gateway.record(tuesday, first, {}, Decimal(0), usage_source="expired")
    gateway.forward(tuesday, second, 10)
    for _ in range(7):  # a laptop has the key
        planted["beside_the_gateway"] += bill(tuesday, key, second, gateway.draw())
    gateway.forward(tuesday, third, 10)
    gateway.forward(tuesday, fourth, 10)
    for _ in range(4):  # the provider answers with another model
        tokens = gateway.draw()
        planted["another_model"] += bill(tuesday, key, fourth, tokens)
        gateway.record(tuesday, third, tokens, gateway.invoice.price(third, tokens))
        planted["another_model"] -= gateway.invoice.price(third, tokens)
    planted["fees"] += Decimal("0.03")
    gateway.invoice.fees[monday, key] += Decimal("0.03")
    return planted


@pytest.mark.parametrize("requests", [100, pytest.param(25_000, marks=pytest.mark.exhaustive)])
@pytest.mark.parametrize("report", MODELS)
def test_every_planted_difference_is_found_with_its_cause_and_its_amount(report, requests, serve_ledger, run, tmp_path):
    invoice = Invoice(report)
    gateway = Gateway(invoice, "key-of-the-gateway")
    planted = plant(gateway, requests)
    invoice.bill(DAYS[0], "another team's", next(iter(MODELS[report])), {"input": 10**6})
    folder = tmp_path / "report"
    folder.mkdir()
    invoice.write(folder)
    more = ("--url", serve_ledger(gateway.rows), "--file", folder, "--key", "key-of-the-gateway=main")
    status, out, err = run(report, *RANGE, *more)
    found = json.loads(out)
    assert (status, err) == (1, "")
    slack = Decimal("1e-9") * len(gateway.rows) + Decimal("1e-9")
    usd = {cause: Decimal(part["usd"]) for cause, part in found["causes"].items() if cause != "rounding"}
    assert usd.keys() == {cause for cause, amount in planted.items() if amount}
    assert {cause: amount for cause, amount in usd.items() if abs(amount - planted[cause]) > slack} == {}
    [elsewhere] = found["other_keys"]
    assert elsewhere == "another team's"
    # The ledger and the bill differ by the planted differences alone.
    assert abs(Decimal(found["difference_usd"]) - sum(planted.values())) <= slack
    [rerouted] = [each for each in found["data"] if each.get("answered")]
    assert [rerouted["model"], rerouted["answered"]] == list(MODELS[report])[2:]
    # A person reads the same: a line for traffic beside the gateway, one for keys of others.
    status, out, _ = run(report, *RANGE[:-1], "table", *more)
    assert status == 1
    assert "beside_the_gateway (" in out
    assert "Not the gateway's: another team's, " in out


@pytest.mark.parametrize("report", MODELS)
def test_an_invoice_that_agrees_is_within_the_tolerance(report, serve_ledger, run, tmp_path):
    gateway = Gateway(Invoice(report), "k")
    for day in DAYS:
        for model in MODELS[report]:
            gateway.forward(day, model, 25)
    # Another model answered, and was charged: the row names the model that was asked for.
    first, second, *_ = MODELS[report]
    for _ in range(5):
        tokens = gateway.draw()
        gateway.record(DAYS[0], first, tokens, gateway.invoice.bill(DAYS[0], "k", second, tokens))
    # What no provider bills: answers from the cache, refusals, requests that failed.
    gateway.record(DAYS[0], first, gateway.draw(), Decimal(0), cache="hit")
    gateway.record(DAYS[0], first, {}, Decimal(0), usage_source="none", status=429, outcome="error")
    gateway.invoice.write(tmp_path)
    more = ("--url", serve_ledger(gateway.rows), "--file", tmp_path, "--provider", "main")
    status, out, _ = run(report, *RANGE, *more)
    found = json.loads(out)
    assert (status, found["percent"]) == (0, "0.0000")
    assert set(found["causes"]) <= {"rounding"}
    assert abs(Decimal(found["billed_usd"]) - Decimal(found["charged_usd"])) < Decimal("1e-6")


@pytest.mark.parametrize("report", ["openai", "anthropic"])
def test_a_report_is_read_page_by_page_from_its_api(report, serve_ledger, run, monkeypatch):
    monkeypatch.setenv("ADMIN_KEY", "sk-admin")
    gateway = Gateway(Invoice(report), "k")
    for day in DAYS:
        gateway.forward(day, next(iter(MODELS[report])), 5)
    url = serve_ledger(gateway.rows)
    with serve(gateway.invoice, "sk-admin") as (base, asked):
        more = ("--url", url, "--provider", "main", "--admin-key", "env:ADMIN_KEY", "--base-url", base)
        status, out, err = run(report, *RANGE, *more)
        assert (status, err, json.loads(out)["percent"]) == (0, "", "0.0000")
        assert len(asked) == 5  # two calls of two pages, and one page asked for again
        monkeypatch.setenv("ADMIN_KEY", "sk-other")
        status, out, err = run(report, *RANGE, *more)
    assert (status, out) == (2, "")
    assert "refuses with status 401: it wants an admin key" in err
    assert "sk-other" not in err


# --- one cell

amounts = st.integers(0, 10**6).map(Decimal)
tokens = st.dictionaries(st.sampled_from(TOKENS), amounts)
costs = st.dictionaries(st.sampled_from((*TOKENS, "fee")), amounts.map(lambda cents: cents / 100))


@given(
    st.lists(st.tuples(costs, tokens, tokens, st.integers(0, 50)), min_size=1, max_size=4),
    st.lists(
        st.tuples(tokens, tokens, tokens, st.integers(0, 50), st.integers(0, 50), amounts), min_size=1, max_size=4
    ),
)
def test_causes_add_up_to_the_difference_whatever_both_sides_say(bills, books):
    billed, book = Billed("main", "2026-11-01", "2026-12-01"), Book()
    for number, (cost, quantity, counted, requests) in enumerate(bills):
        cell = Cell(DAYS[0], "main", str(number) if number else "")
        billed.cells[cell] = Charges(dict(cost), dict(quantity), dict(counted), requests)
    for number, (own, unsure, unpriced, requests, without, cost) in enumerate(books):
        cell = Cell(DAYS[0], "main", str(number + 1))
        book.cells[cell] = Charged(requests, min(without, requests), cost / 7, dict(own), dict(unsure), dict(unpriced))
    differences = compare(billed, book)
    total = sum((charges.total for charges in billed.cells.values()), Decimal(0))
    charged = sum((each.cost for each in book.cells.values() if each.requests), Decimal(0))
    assert sum((each.billed for each in differences), Decimal(0)) == total
    assert abs(sum((sum(each.causes.values()) for each in differences), Decimal(0)) - (total - charged)) < Decimal(
        "1e-12"
    )
    assert all(set(each.causes) <= set(CAUSES) for each in differences)


@pytest.mark.parametrize("requests", [None, 14])
def test_rows_without_usage_and_traffic_beside_are_told_apart(requests):
    """Ten rows of 100 tokens, two without usage, and 400 tokens more on the bill than the ten have."""
    billed, book = Billed("main", "2026-11-01", "2026-12-01"), Book()
    cell = Cell(DAYS[0], "main", "m")
    billed.cells[cell] = Charges({"input": Decimal(14)}, {"input": Decimal(1400)}, {}, requests or 0)
    book.cells[cell] = Charged(10, 2, Decimal(8), {"input": Decimal(800)})
    [found] = compare(billed, book)
    assert found.causes == {"rows_without_usage": Decimal(2), "beside_the_gateway": Decimal(4)}


def test_a_fee_that_the_ledger_charges_to_its_model_is_no_difference():
    """The provider bills a search without a model; the row of the search has its fee."""
    billed, book = Billed("main", "2026-11-01", "2026-12-01"), Book()
    billed.cells[Cell(DAYS[0], "main", "m")] = Charges({"input": Decimal(5)}, {"input": Decimal(50)})
    billed.cells[Cell(DAYS[0], "main", "")] = Charges({"fee": Decimal(3)})
    book.cells[Cell(DAYS[0], "main", "m")] = Charged(1, 0, Decimal(7), {"input": Decimal(50)})
    fee, model = compare(billed, book)
    assert (fee.causes, model.causes) == ({"fees": Decimal(1)}, {})


@pytest.mark.parametrize(
    ("one", "other"),
    [
        *((name, word) for models in MODELS.values() for name, word in models.items()),
        ("anthropic.claude-sonnet-4-20250514-v1:0", "Claude4Sonnet"),
        ("arn:aws:bedrock:us-east-1:1:inference-profile/us.anthropic.claude-opus-4-5-20251101-v1:0", "Claude4.5Opus"),
        ("amazon.nova-2-lite-v1:0", "Nova2.0Lite"),
        ("gpt-5-codex", "gpt-5-codex"),
        ("claude-sonnet-4@20250514", "Claude Sonnet 4"),
        ("models/gemini-3-flash", "Gemini 3 Flash"),
    ],
)
def test_spellings_of_a_model_are_one_family(one, other):
    other = other.removesuffix(" GA").removesuffix(" Global").removesuffix("-mantle")
    assert family(one) == family(other)


def test_models_of_other_names_are_other_families():
    names = [name for models in MODELS.values() for name in models if not name.startswith(("us.", "anthropic."))]
    names += [
        "gpt-4",
        "gpt-5.4",
        "gpt-4-turbo",
        "gemini-2.0-flash",
        "claude-3-5-sonnet",
        "claude-3-opus",
        "o1",
        "o1-pro",
    ]
    assert len({family(name) for name in names}) == len(set(names))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["bedrock"], "is read from its export's files: --file PATH"),
        (["openai"], "the key of its API, --admin-key env:NAME"),
        (["openai", "--key", "proj"], "--key is given as ID=PROVIDER"),
        (["openai", "--from", "2026-12-01", "--to", "2026-11-01"], "--from must be before --to"),
        (["openai", "--file", "x.json", "--admin-key", "env:A"], "give --file or --admin-key, not both"),
    ],
)
def test_options_that_do_not_fit_are_refused(arguments, message, run):
    status, _, err = run(*arguments, "--url", "http://127.0.0.1:1", "--provider", "p")
    assert status == 2
    assert message in err


def test_more_cells_than_fit_are_an_error(monkeypatch):
    monkeypatch.setattr("extproc.money.reconcile.MAX_CELLS", 3)
    billed = Billed("main", "2026-11-01", "2026-12-01")
    with pytest.raises(BillError, match="more than 3 days, keys and models"):
        for number in range(4):
            billed.add(Line(DAYS[0], ("k",), f"m{number}", "input", Decimal(1)))

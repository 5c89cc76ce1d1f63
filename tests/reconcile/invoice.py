"""A provider that bills requests its own way: prices, rounding and words of its own, written as each provider's report.

Requests are added with `bill`. `write` gives the files, `serve` the API. No code of the gateway is used.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections import defaultdict
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import ROUND_HALF_UP, Decimal
from http.server import BaseHTTPRequestHandler
from urllib.parse import parse_qs, urlsplit

from tests.doubles.bucket import served

KINDS = ("input", "cached", "write", "output")
PRICES = {"input": Decimal("2.5"), "cached": Decimal("0.25"), "write": Decimal("3.125"), "output": Decimal(10)}
"""USD of a million tokens."""
FACTORS = (Decimal(1), Decimal("0.3"), Decimal(5), Decimal("0.07"))
"""Prices of the four models of each provider, as a part of PRICES."""
MODELS = {
    "openai": {
        "gpt-4o": "gpt-4o-2024-08-06",
        "gpt-4o-mini": "gpt-4o-mini-2024-07-18",
        "gpt-4.1": "gpt-4.1-2025-04-14",
        "o4-mini": "o4-mini-2025-04-16",
    },
    "anthropic": {
        "claude-sonnet-4-5": "claude-sonnet-4-5-20250929",
        "claude-haiku-4-5": "claude-haiku-4-5-20251001",
        "claude-opus-4-1": "claude-opus-4-1-20250805",
        "claude-3-5-haiku-latest": "claude-3-5-haiku-20241022",
    },
    "bedrock": {
        "anthropic.claude-sonnet-4-5-20250929-v1:0": "Claude4.5Sonnet",
        "us.anthropic.claude-haiku-4-5-20251001-v1:0": "Claude4.5Haiku",
        "amazon.nova-pro-v1:0": "NovaPro",
        "openai.gpt-oss-120b-1:0": "openai.gpt-oss-120b-mantle",
    },
    "azure": {"gpt-4o": "gpt-4o-0806", "gpt-5.4-mini": "5.4 mini", "gpt-4.1": "gpt 4.1", "o4-mini": "o4-mini 0416"},
    "gcp": {
        "gemini-2.5-flash": "Gemini 2.5 Flash GA",
        "gemini-2.5-pro": "Gemini 2.5 Pro",
        "gemini-3-flash": "Gemini 3.0 Flash Global",
        "gemini-2.5-flash-lite": "Gemini 2.5 Flash Lite",
    },
}
"""Names of models in the ledger and in the report."""


class Invoice:
    """`lines` are costs (USD, as rounded in the report) and tokens by day, key, model and kind."""

    def __init__(self, report: str) -> None:
        self.report = report
        self.factors = dict(zip(MODELS[report], FACTORS, strict=True))
        self.tokens: dict[tuple, Decimal] = defaultdict(Decimal)
        self.requests: dict[tuple, int] = defaultdict(int)
        self.fees: dict[tuple, Decimal] = defaultdict(Decimal)

    def price(self, model: str, tokens: dict[str, int]) -> Decimal:
        """USD of a request, exactly."""
        return sum((PRICES[kind] * count * self.factors[model] for kind, count in tokens.items()), Decimal(0)) / 10**6

    def bill(self, day: str, key: str, model: str, tokens: dict[str, int], fee: Decimal = Decimal(0)) -> Decimal:
        for kind, count in tokens.items():
            self.tokens[day, key, model, kind] += count
        self.requests[day, key, model] += 1
        if fee:
            self.fees[day, key] += fee
        return self.price(model, tokens) + fee

    def write(self, folder) -> None:
        """Files of the report in a folder, some of them compressed."""
        text, name = getattr(self, f"_{self.report}")()
        half = len(text) // 2 if name.endswith("l") else len(text)
        (folder / f"1-{name}").write_text("".join(text[:half]))
        with gzip.open(folder / f"2-{name}.gz", "wt") as file:
            file.write("".join(text[half:] or text[:1]))

    def _cells(self):
        for (day, key, model, kind), count in sorted(self.tokens.items()):
            cost = self.price(model, {kind: count}).quantize(Decimal("1e-10"), ROUND_HALF_UP)
            yield day, key, MODELS[self.report][model], kind, count, cost

    def _openai(self):
        return [json.dumps(page) + "\n" for page in (*self.pages("costs"), *self.pages("completions"))], "pages.jsonl"

    def _anthropic(self):
        pages = (*self.pages("cost_report"), *self.pages("messages"))
        return [json.dumps(page) + "\n" for page in pages], "pages.jsonl"

    def pages(self, kind: str) -> list[dict]:
        """The answers of one path of the API: a page for each day."""
        days = sorted({cell[0] for cell in self.tokens})
        return [
            {"data": [self._bucket(kind, day)], "has_more": day != days[-1], "next_page": f"page_{number + 1}"}
            for number, day in enumerate(days)
        ]

    def _bucket(self, kind, day):
        results = list(getattr(self, f"_{kind}")(day))
        if self.report == "openai":
            start = int(datetime.fromisoformat(day).replace(tzinfo=UTC).timestamp())
            return {"object": "bucket", "start_time": start, "end_time": start + 86_400, "results": results}
        return {"starting_at": f"{day}T00:00:00Z", "results": results}

    def _costs(self, day):
        words = {"input": "input", "cached": "cached input", "write": "cache write input", "output": "output"}
        for at, key, model, kind, count, cost in self._cells():
            if at == day:
                yield {
                    "object": "organization.costs.result",
                    "amount": {"value": float(cost), "currency": "usd"},
                    "line_item": f"{model}, {words[kind]}",
                    "project_id": key,
                    "quantity": float(count) / 1000,
                    "quantity_unit": "1000_tokens",
                }
        for (at, key), usd in self.fees.items():
            if at == day:
                amount = {"value": float(usd), "currency": "usd"}
                yield {
                    "object": "organization.costs.result",
                    "amount": amount,
                    "line_item": "web search tool calls",
                } | {
                    "project_id": key,
                    "quantity": 3,
                    "quantity_unit": None,
                }

    def _completions(self, day):
        for (at, key, model), requests in self.requests.items():
            tokens = {kind: int(self.tokens[at, key, model, kind]) for kind in KINDS}
            if at == day:
                yield {
                    "object": "organization.usage.completions.result",
                    "input_tokens": tokens["input"] + tokens["cached"] + tokens["write"],
                    "input_cached_tokens": tokens["cached"],
                    "input_cache_write_tokens": tokens["write"],
                    "output_tokens": tokens["output"],
                    "num_model_requests": requests,
                    "project_id": key,
                    "model": MODELS[self.report][model],
                }

    def _cost_report(self, day):
        words = {"input": "uncached_input_tokens", "cached": "cache_read_input_tokens", "output": "output_tokens"}
        words["write"] = "cache_creation.ephemeral_5m_input_tokens"
        for at, key, model, kind, _, cost in self._cells():
            if at == day:
                yield {"amount": str(cost * 100), "currency": "USD", "cost_type": "tokens", "model": model} | {
                    "token_type": words[kind],
                    "workspace_id": key or None,
                }
        for (at, key), usd in self.fees.items():
            if at == day:
                yield {"amount": str(usd * 100), "currency": "USD", "cost_type": "web_search", "model": None} | {
                    "token_type": None,
                    "workspace_id": key or None,
                }

    def _messages(self, day):
        for at, key, model in self.requests:
            tokens = {kind: int(self.tokens[at, key, model, kind]) for kind in KINDS}
            if at == day:
                yield {
                    "uncached_input_tokens": tokens["input"],
                    "cache_read_input_tokens": tokens["cached"],
                    "cache_creation": {"ephemeral_5m_input_tokens": tokens["write"], "ephemeral_1h_input_tokens": 0},
                    "output_tokens": tokens["output"],
                    "server_tool_use": {"web_search_requests": 0},
                    "workspace_id": key or None,
                    "model": MODELS[self.report][model],
                }

    def _bedrock(self):
        words = {"input": "input-tokens", "output": "output-tokens", "cached": "cache-read-input-token-count"}
        words["write"] = "cache-write-input-token-count"
        rows = [
            {
                "line_item_usage_start_date": f"{day}T{number % 24:02}:00:00.000Z",
                "line_item_line_item_type": "Usage",
                "line_item_product_code": "AmazonBedrock",
                "line_item_usage_account_id": key,
                "line_item_usage_type": f"USE1-{model}-{words[kind]}",
                "line_item_usage_amount": f"{count / 1000:f}",
                "pricing_unit": "1K tokens",
                "line_item_unblended_cost": f"{cost:f}",
                "line_item_currency_code": "USD",
            }
            for number, (day, key, model, kind, count, cost) in enumerate(self._cells())
        ]
        fees = [
            rows[0]
            | {"line_item_usage_start_date": day, "line_item_usage_type": "USE1-Guardrail-TextUnit"}
            | {"line_item_usage_account_id": key, "line_item_unblended_cost": f"{usd:f}"}
            for (day, key), usd in self.fees.items()
        ]
        noise = [rows[0] | {"line_item_product_code": "AmazonEC2"}, rows[0] | {"line_item_line_item_type": "Tax"}]
        return _csv([*rows, *fees, *noise]), "cur.csv"

    def _azure(self):
        words = {"input": "Inp", "output": "Outp", "cached": "cd Inp", "write": "Cd Wr"}
        rows = [
            {
                "Date": f"{day[5:7]}/{day[8:]}/{day[:4]}",
                "ConsumedService": "Microsoft.CognitiveServices",
                "ChargeType": "Usage",
                "MeterName": f"{model} {words[kind]} glbl Tokens",
                "ResourceId": key,
                "Quantity": f"{count / 1000:f}",
                "UnitOfMeasure": "1K",
                "CostInBillingCurrency": f"{cost:f}",
                "BillingCurrencyCode": "USD",
            }
            for day, key, model, kind, count, cost in self._cells()
        ]
        fees = [
            rows[0]
            | {"Date": day, "ResourceId": key, "MeterName": "Code-Interpreter Session", "UnitOfMeasure": "1"}
            | {"CostInBillingCurrency": f"{usd:f}"}
            for (day, key), usd in self.fees.items()
        ]
        return _csv([*rows, *fees, rows[0] | {"ConsumedService": "Microsoft.Storage"}]), "export.csv"

    def _gcp(self):
        words = {"input": "Text Input - Predictions", "output": "Text Output - Predictions"}
        words |= {"cached": "Text Input Caching", "write": "Text Input Cache Write"}
        rows = [
            {
                "usage_start_time": f"{day} {number % 24:02}:00:00 UTC",
                "service": {"id": "C7E2", "description": "Vertex AI"},
                "sku": {"description": f"{model} {words[kind]}"},
                "project": {"id": key},
                "usage": {"amount": float(count), "unit": "count"},
                "cost": f"{cost * 2:f}",
                "currency": "EUR",
                "currency_conversion_rate": 2,
                "cost_type": "regular",
                "credits": [{"amount": -1}],
            }
            for number, (day, key, model, kind, count, cost) in enumerate(self._cells())
        ]
        storage = {"sku": {"description": "Gemini 2.5 Pro Text Input Caching Storage"}}
        fees = [
            rows[0] | storage | {"usage_start_time": day, "project": {"id": key}, "cost": f"{usd * 2:f}"}
            for (day, key), usd in self.fees.items()
        ]
        rows += [*fees, rows[0] | {"service": {"description": "Compute Engine"}}, rows[0] | {"cost_type": "tax"}]
        return [json.dumps(row) + "\n" for row in rows], "billing.jsonl"


def _csv(rows):
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue().splitlines(keepends=True)


@contextmanager
def serve(invoice: Invoice, key: str):
    """The report's API, which gives a page a day. Yields its address and the paths that were asked for. The first call
    is refused, as one of many too many.
    """
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def do_GET(self):
            parts = urlsplit(self.path)
            query = parse_qs(parts.query)
            asked.append(self.path)
            if key not in (self.headers.get("x-api-key"), self.headers.get("authorization", "")[7:]):
                self._answer(401, {})
            elif len(asked) == 1:
                self._answer(429, {})
            else:
                pages = invoice.pages(parts.path.rpartition("/")[2])
                self._answer(200, pages[int(query.get("page", ["page_0"])[0].partition("_")[2])])

        def _answer(self, status, body):
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(data)))
            self.send_header("retry-after", "0")
            self.end_headers()
            self.wfile.write(data)

    with served(Handler) as address:
        yield f"{address}/v1", asked

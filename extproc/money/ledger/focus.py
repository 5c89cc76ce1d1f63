"""Usage as rows of FOCUS 1.2, the FinOps Open Cost and Usage Specification.

https://focus.finops.org/focus-specification/v1-2

A row is the usage of one day by team, consumer, provider, model and operation. The gateway prices requests by itself:
list, contracted, billed and effective cost are one amount. The unit price is that amount for each token, or for each
request if no tokens were counted. The gateway's own columns begin with `x_`, as the specification demands.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Context, Decimal
from typing import Any, Literal

import msgspec

from extproc.money.ledger.query import month_of, next_month

VERSION = "1.2"
GROUPS = ("team", "consumer", "provider", "provider_model", "operation")
"""Fields of a usage report that become columns. Further fields become tags."""
Type = Literal["text", "number", "count", "time"]

COLUMNS: Mapping[str, Type] = {
    "BillingAccountId": "text",
    "BillingAccountName": "text",
    "BillingAccountType": "text",
    "BillingCurrency": "text",
    "BillingPeriodStart": "time",
    "BillingPeriodEnd": "time",
    "ChargePeriodStart": "time",
    "ChargePeriodEnd": "time",
    "ChargeCategory": "text",
    "ChargeClass": "text",
    "ChargeDescription": "text",
    "ChargeFrequency": "text",
    "BilledCost": "number",
    "EffectiveCost": "number",
    "ListCost": "number",
    "ContractedCost": "number",
    "ListUnitPrice": "number",
    "ContractedUnitPrice": "number",
    "PricingCategory": "text",
    "PricingQuantity": "number",
    "PricingUnit": "text",
    "ConsumedQuantity": "number",
    "ConsumedUnit": "text",
    "CommitmentDiscountCategory": "text",
    "CommitmentDiscountId": "text",
    "CommitmentDiscountName": "text",
    "CommitmentDiscountStatus": "text",
    "CommitmentDiscountType": "text",
    "InvoiceId": "text",
    "InvoiceIssuerName": "text",
    "ProviderName": "text",
    "PublisherName": "text",
    "RegionId": "text",
    "RegionName": "text",
    "ResourceId": "text",
    "ResourceName": "text",
    "ResourceType": "text",
    "ServiceCategory": "text",
    "ServiceSubcategory": "text",
    "ServiceName": "text",
    "SkuId": "text",
    "SkuMeter": "text",
    "SkuPriceId": "text",
    "SkuPriceDetails": "text",
    "SubAccountId": "text",
    "SubAccountName": "text",
    "SubAccountType": "text",
    "Tags": "text",
    "x_Consumer": "text",
    "x_Requests": "count",
    "x_UnpricedRequests": "count",
    "x_InputTokens": "count",
    "x_OutputTokens": "count",
    "x_CachedTokens": "count",
    "x_CacheWriteTokens": "count",
    "x_ReasoningTokens": "count",
}
"""Columns, in the order of a file. FOCUS 1.0 requires the columns that no row fills."""
_UNKNOWN = "unknown"
_divide = Context(prec=24).divide


def row_of(row: Mapping[str, Any], account: str) -> Mapping[str, Any] | None:
    """A FOCUS row, from a row of a usage report by day, grouped by GROUPS and further fields. Columns left out are
    null. None for a row without use, such as one of refused requests.
    """
    group, cost = row["group"], Decimal(row["cost_usd"])
    tokens = row["input_tokens"] + row["output_tokens"]
    if not (tokens or cost or group["provider"]):
        return None
    start, end = (datetime.fromisoformat(row[name]).astimezone(UTC) for name in ("start", "end"))
    provider, model = group["provider"] or _UNKNOWN, group["provider_model"] or _UNKNOWN
    quantity, unit = (tokens, "Tokens") if tokens else (row["requests"], "Requests")
    price, service = _divide(cost, Decimal(quantity)), group["operation"] or _UNKNOWN
    team = group["team"] or None
    tags = {name: value for name, value in group.items() if value and name not in GROUPS}
    return {
        **dict.fromkeys(("BillingAccountId", "BillingAccountName"), account),
        "BillingAccountType": "Gateway",
        "BillingCurrency": "USD",
        "BillingPeriodStart": month_of(start),
        "BillingPeriodEnd": next_month(start),
        "ChargePeriodStart": start,
        "ChargePeriodEnd": end,
        "ChargeCategory": "Usage",
        "ChargeDescription": f"{model} at {provider}: {service}",
        "ChargeFrequency": "Usage-Based",
        **dict.fromkeys(("BilledCost", "EffectiveCost", "ListCost", "ContractedCost"), cost),
        **dict.fromkeys(("ListUnitPrice", "ContractedUnitPrice"), price),
        "PricingCategory": "Standard",
        **dict.fromkeys(("PricingQuantity", "ConsumedQuantity"), Decimal(quantity)),
        **dict.fromkeys(("PricingUnit", "ConsumedUnit", "SkuMeter"), unit),
        **dict.fromkeys(("InvoiceIssuerName", "ProviderName", "PublisherName"), provider),
        "ServiceCategory": "AI and Machine Learning",
        "ServiceSubcategory": "Generative AI",
        "ServiceName": service,
        **dict.fromkeys(("SkuId", "SkuPriceId"), f"{provider}/{model}"),
        **dict.fromkeys(("SubAccountId", "SubAccountName"), team),
        "SubAccountType": team and "Team",
        "Tags": msgspec.json.encode(tags, order="sorted").decode(),
        "x_Consumer": group["consumer"] or None,
        "x_Requests": row["requests"],
        "x_UnpricedRequests": row["unpriced"],
        "x_InputTokens": row["input_tokens"],
        "x_OutputTokens": row["output_tokens"],
        "x_CachedTokens": row["cached_tokens"],
        "x_CacheWriteTokens": row["cache_write_tokens"],
        "x_ReasoningTokens": row["reasoning_tokens"],
    }


def csv_text(value: Any) -> str:
    """A value in a CSV file: times as `2026-11-01T00:00:00Z`, nulls empty. Numbers have a point and no exponent, so
    readers that guess a type take them for decimals.
    """
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%dT%H:%M:%SZ}"
    if isinstance(value, Decimal):
        text = f"{value:f}"
        return text if "." in text else f"{text}.0"
    return cell(value)


_UNSEEN = " \n\u00a0\u200b\u3000\ufeff"  # characters that show nothing at the beginning of a cell
_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # first characters of a cell that a spreadsheet would compute


def cell(value: object) -> str:
    """A cell of a CSV file. A cell that a spreadsheet would take for a formula begins with an apostrophe."""
    text = "" if value is None else str(value)
    bare = text.lstrip(" \n")
    # In some languages spreadsheets also compute the full-width and small forms of these signs.
    folded = unicodedata.normalize("NFKC", text.lstrip(_UNSEEN)[:1])
    return f"'{text}" if bare.startswith(_FORMULA) or folded.startswith(_FORMULA) else text

"""Rows of FOCUS, compared with what the specification asks."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from extproc.money.ledger.focus import COLUMNS, csv_text, row_of

# Columns of FOCUS 1.2 that must be present, and of them those that must not be null for a charge of usage.
# https://focus.finops.org/focus-specification/v1-2
NEVER_NULL = {
    *("BilledCost", "EffectiveCost", "ListCost", "ContractedCost", "PricingQuantity", "PricingUnit", "ListUnitPrice"),
    *("BillingAccountId", "BillingAccountType", "BillingCurrency", "BillingPeriodStart", "BillingPeriodEnd"),
    *("ChargeCategory", "ChargePeriodStart", "ChargePeriodEnd", "ConsumedQuantity", "ConsumedUnit", "SkuId"),
    *("InvoiceIssuerName", "ProviderName", "PublisherName", "ServiceCategory", "ServiceName", "ServiceSubcategory"),
}
PRESENT = {*NEVER_NULL, "BillingAccountName", "ChargeClass", "ChargeDescription", "ChargeFrequency", "InvoiceId"}
OURS = {"ChargeClass", "InvoiceId", "SkuPriceDetails", "RegionId", "RegionName", "ResourceId", "ResourceName"}
NULL = {*OURS, "ResourceType", *(name for name in COLUMNS if name.startswith("CommitmentDiscount"))}


def usage(**more):
    group = {"team": "search", "consumer": "ada", "provider": "openai", "provider_model": "gpt-4o", "operation": "chat"}
    counts = ("output_tokens", "cached_tokens", "cache_write_tokens", "reasoning_tokens", "unpriced")
    row = {"start": "2026-11-30T00:00:00Z", "end": "2026-12-01T00:00:00Z", "requests": 3, "input_tokens": 7}
    found = {**row, **dict.fromkeys(counts, 0), "cost_usd": "0.000000011", **more}
    return found | {"group": group | more.get("group", {})}


@pytest.mark.parametrize("more", [{}, {"input_tokens": 0}, {"group": {"provider": "", "team": ""}}])
def test_a_row_has_what_focus_asks_for(more):
    row = row_of(usage(**more), "main")
    assert set(COLUMNS) >= PRESENT
    assert set(row) <= set(COLUMNS)
    assert {name for name in NEVER_NULL if row.get(name) is None} == set()
    assert {name for name in COLUMNS if row.get(name) is None} - NULL <= {
        "SubAccountId",
        "SubAccountName",
        "SubAccountType",
    }
    for cost, price in (("ListCost", "ListUnitPrice"), ("ContractedCost", "ContractedUnitPrice")):
        assert row[cost] == Decimal("0.000000011")
        assert abs(row[price] * row["PricingQuantity"] - row[cost]) < Decimal("1e-20")
    assert row["BillingPeriodStart"] == datetime(2026, 11, 1, tzinfo=UTC)
    assert row["BillingPeriodEnd"] == row["ChargePeriodEnd"] == datetime(2026, 12, 1, tzinfo=UTC)
    assert csv_text(row["ChargePeriodStart"]) == "2026-11-30T00:00:00Z"
    assert "E" not in csv_text(row["ListUnitPrice"])


def test_further_fields_are_tags_and_refusals_are_no_rows():
    row = row_of(usage(group={"label.run": 'n"1', "key": "k", "label.app": ""}), "main")
    assert json.loads(row["Tags"]) == {"label.run": 'n"1', "key": "k"}
    assert row_of(usage(input_tokens=0, cost_usd="0", group={"provider": ""}), "main") is None
    # A client left before a provider was known: the bound of its cost counts.
    assert row_of(usage(group={"provider": "", "provider_model": ""}), "main")["ProviderName"] == "unknown"

"""Vertex AI and the Gemini API: files of the Cloud Billing export (standard or detailed), as BigQuery writes them. A
SKU is a model, a modality and a direction, for example `Gemini 2.5 Flash GA Thinking Text Output - Predictions`.
Credits are no part of the costs.

https://docs.cloud.google.com/billing/docs/how-to/export-data-bigquery-tables/standard-usage
"""

import re

from extproc.money.reconcile.bills import Table

BILL = Table(
    source="https://docs.cloud.google.com/billing/docs/how-to/export-data-bigquery-tables/standard-usage",
    kinds=("gcp_vertex_ai", "gcp_gemini"),
    day=("usage_start_time",),
    keys=(("project.id",), ("project.number",)),
    name=(("sku.description",),),
    patterns=(
        re.compile(r"^Generate.content (?P<kind>.+?) (?:token )?count (?:for )?(?P<model>\S.*)$", re.IGNORECASE),
        re.compile(
            r"^(?P<model>\S.*?)(?: GA| Global| Regional| Thinking)*"
            r"(?P<kind>(?: Text| Audio| Image| Video)? (?:Input|Output)\b.*)$",
            re.IGNORECASE,
        ),
    ),
    cost=("cost",),
    quantity=("usage.amount",),
    unit=(),
    currency=("currency",),
    per_usd=("currency_conversion_rate",),
    only={
        ("service.description",): re.compile(r"vertex|gemini|generative language", re.IGNORECASE),
        ("sku.description",): re.compile(r"\btokens?\b|input|output|cach", re.IGNORECASE),
        ("cost_type",): re.compile(r"^(?:regular)?$"),
    },
)

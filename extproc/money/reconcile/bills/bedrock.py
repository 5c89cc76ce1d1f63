"""Amazon Bedrock: files of Cost and Usage Reports 2.0. A usage type is a region, a model and a kind of token, for
example `USE1-Claude4.5Sonnet-cache-read-input-token-count`.

https://docs.aws.amazon.com/bedrock/latest/userguide/cost-mgmt-understanding-cur-data.html
"""

import re

from extproc.money.reconcile.bills import Table

BILL = Table(
    source="https://docs.aws.amazon.com/cur/latest/userguide/table-dictionary-cur2-line-item.html",
    kinds=("aws_bedrock",),
    day=("line_item_usage_start_date",),
    keys=(("line_item_iam_principal",), ("line_item_resource_id",), ("line_item_usage_account_id",)),
    name=(("line_item_usage_type",), ("product.product_name",)),
    patterns=(
        re.compile(
            r"^(?:[A-Z]{2,4}\d?-)?(?P<model>.+?)(?:-mantle)?-(?P<kind>(?:cache-(?:read|write)-)?(?:input|output)-token.*)"
        ),
        re.compile(r"^(?P<model>.+) (?P<kind>\(Amazon Bedrock Edition\))"),  # models of AWS Marketplace
    ),
    cost=("line_item_unblended_cost",),
    quantity=("line_item_usage_amount",),
    unit=("pricing_unit", "pricing.unit"),
    currency=("line_item_currency_code",),
    only={
        ("line_item_line_item_type",): re.compile(r"^(?:Usage|DiscountedUsage)$"),
        ("line_item_product_code", "product.product_name"): re.compile("bedrock", re.IGNORECASE),
    },
)

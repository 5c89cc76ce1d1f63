"""Azure OpenAI: cost and usage files of Cost Management exports. A meter is a model, a kind of token and a place, for
example `gpt-4o-0806-Inp-glbl Tokens` or `5.1 pp cd inp Dz 1M Tokens`.

https://learn.microsoft.com/azure/cost-management-billing/dataset-schema/cost-usage-details-ea
"""

import re

from extproc.money.reconcile.bills import Table

BILL = Table(
    source="https://learn.microsoft.com/azure/cost-management-billing/automate/understand-usage-details-fields",
    kinds=("azure_openai", "azure_openai_dated"),
    day=("date", "usagedatetime"),
    keys=(("resourceid", "instanceid", "instancename"), ("subscriptionid", "subscriptionguid")),
    name=(("metername",),),
    patterns=(
        re.compile(
            r"^(?P<model>\S.*?)[- ](?P<kind>(?:inp?|input|outp?|opt|output|cd|c*chd|cached|batch|pp|std|glbl|gl|regnl|"
            r"rg|dz|dzone|data|shortco|longco)\b.*token.*)$",
            re.IGNORECASE,
        ),
    ),
    usd=("costinusd",),
    cost=("costinbillingcurrency", "pretaxcost", "cost"),
    quantity=("quantity", "usagequantity"),
    unit=("unitofmeasure",),
    currency=("billingcurrencycode", "billingcurrency", "currency"),
    only={
        ("chargetype",): re.compile(r"^(?:Usage)?$", re.IGNORECASE),
        ("consumedservice",): re.compile(r"^Microsoft\.CognitiveServices$", re.IGNORECASE),
    },
)

"""Databricks model serving; `base_url` is https://<workspace>/serving-endpoints."""

from extproc.upstream.providers import Provider

PROVIDER = Provider(
    gen_ai_name="databricks",
    source="https://docs.databricks.com/aws/en/machine-learning/model-serving/score-foundation-models",
    dialects=("openai_chat", "openai_embeddings"),
    more=("max_tokens",),
    catalogue="databricks",
    example=(
        (
            "{kind: databricks, base_url: https://acme.cloud.databricks.com/serving-endpoints, "
            "api_key: env:DATABRICKS_TOKEN}"
        ),
        "databricks-meta-llama-3-3-70b-instruct",
    ),
)

"""`audit:` of the filter YAML."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, StringConstraints, field_validator

from extproc.wire.outbound.s3 import check_name
from extproc.words.values import SecretRef, Section


def _bucket(value: str) -> str:
    check_name(value)
    return value


def _store(value: str) -> str:
    url = urlsplit(value)
    if url.scheme not in ("http", "https") or not url.hostname or url.username or url.path or url.query:
        raise ValueError("an endpoint is https://host or http://host:port, without a path")
    return value


class AuditBucketSettings(Section):
    """Copy of the audit trail in a bucket of an S3-compatible store, an object for each minute that has entries."""

    name: Annotated[str, AfterValidator(_bucket)] = Field(description="Name of the bucket.")
    region: Annotated[str, StringConstraints(pattern=r"^[a-z0-9-]{1,32}$")] = Field(
        "us-east-1", description="Region of the bucket."
    )
    access_key_id: SecretRef = Field(description="Id of the key that may create and read objects, as `env:NAME`.")
    secret_access_key: SecretRef = Field(description="The key's secret, as `env:NAME` or `file:/path`.")
    endpoint: Annotated[str, AfterValidator(_store)] | None = Field(
        None, description="Address of another store than AWS, `https://host`. Paths begin with the bucket's name there."
    )
    prefix: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._/-]{0,200}$")] = Field(
        "audit/", description="Beginning of the objects' names."
    )


class AuditSettings(Section):
    """Copies of the audit trail outside the ledger's database, where operators of the database cannot change it. The
    trail itself is kept for `admin.audit_keep`.
    """

    file: str | None = Field(
        None,
        description="File to which this gateway appends each entry as a line of JSON. A rotation that renames it is "
        "noticed. Default: none.",
    )
    otlp: Annotated[str, StringConstraints(pattern=r"^https?://[A-Za-z0-9.\[\]:_-]+:\d{1,5}$")] | None = Field(
        None,
        description="Address of a collector's OTLP receiver for HTTP, `http://host:4318`, that gets each entry as a "
        "log record. Default: none.",
    )
    token: SecretRef | None = Field(
        None, description="Token that the collector gets as `Authorization: Bearer …`, as `env:NAME` or `file:/path`."
    )
    bucket: AuditBucketSettings | None = Field(None, description="Bucket for the entries. Default: none.")

    @field_validator("file")
    @classmethod
    def _named(cls, value: str | None) -> str | None:
        if value is not None and (not value.strip() or "\0" in value):
            raise ValueError("file is a path")
        return value

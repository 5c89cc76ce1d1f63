"""`record:` of the filter YAML."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from extproc.routing.matching import MatchSettings
from extproc.words.values import PositiveDuration, SecretRef, Section, Size


class RecordSettings(Section):
    """Texts of requests and answers, kept encrypted beside the ledger for a while. Off unless this section is set."""

    keys: Sequence[SecretRef] = Field(
        min_length=1,
        max_length=8,
        description="Secrets that encrypt the texts, as `env:NAME` or `file:/path`, of at least 16 characters. The "
        "first one encrypts, the others still decrypt: put a new one in front.",
    )
    share: float = Field(1.0, ge=0, le=1, description="Share of the requests that are recorded, drawn at random.")
    match: MatchSettings = Field(
        default_factory=dict, description="Requests that are recorded, as `targets[].match`. Default: all requests."
    )
    keep: PositiveDuration = Field(
        7 * 86400.0, le=366 * 86400, description="Age at which texts are deleted, at most `366d`."
    )
    most: Size = Field(
        256 << 10,
        ge=1 << 10,
        le=16 << 20,
        description="Most bytes of a request, and of an answer, that are kept. A longer text is cut.",
    )
    memory: Size = Field(
        64 << 20,
        ge=1 << 20,
        le=4 << 30,
        description="Most bytes of texts in one process that are not written yet. Beyond it requests are not recorded.",
    )

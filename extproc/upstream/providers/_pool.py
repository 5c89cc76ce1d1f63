"""Settings of a pool: a provider of several servers that run the same models, most often pods of one Service."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, get_args

from pydantic import Field, StringConstraints, field_validator, model_validator

from extproc.words.values import Duration, PeerName, PositiveDuration, Section

MetricsOf = Literal["vllm", "sglang", "tgi", "triton", "none"]
ScorerName = Literal["queue", "running", "kv_cache", "prefix", "adapter", "session", "first_byte"]
HostPort = Annotated[str, StringConstraints(pattern=r"^([A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\]):[0-9]{1,5}$")]
PickerAddress = Annotated[
    str, StringConstraints(pattern=r"^grpcs?://([A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\]):[0-9]{1,5}$")
]
ServiceName = Annotated[str, StringConstraints(pattern=r"^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?/)?[a-z0-9-]{1,63}$")]
PEMFile = Annotated[str, StringConstraints(pattern=r"^file:/.{1,1000}$")]
Weight = Annotated[float, Field(ge=0, le=100)]
Payer = Annotated[str, StringConstraints(min_length=1, max_length=256)]
Priority = Annotated[int, Field(ge=-100, le=100)]

WEIGHTS: Mapping[ScorerName, float] = {
    "queue": 0.25,
    "running": 8.0,
    "kv_cache": 0.5,
    "prefix": 8.0,
    "adapter": 3.0,
    "session": 1.0,
    "first_byte": 0.5,
}
"""The usual weight of each scorer."""


class SaturationSettings(Section):
    """Load of an endpoint from which on it gets no further request while another endpoint has room."""

    waiting: int = Field(
        12, ge=1, le=10_000, description="Requests that wait inside the server, 1 to 10000, from which on it is full."
    )
    kv_cache: float = Field(
        0.95, gt=0, le=1, description="Share of the server's KV cache in use, above 0 to 1, from which on it is full."
    )
    requests: int | None = Field(
        None,
        ge=1,
        le=100_000,
        description="Requests of one gateway process in flight at the server from which on it is full, 1 to 100000. "
        "Set it for servers without metrics. Default: no limit.",
    )


class ServeTLSSettings(Section):
    """TLS of `pool.serve`. Changed files are read at the next connection."""

    certificate: PEMFile = Field(description="Certificate chain of the picker in PEM, as `file:/path`.")
    key: PEMFile = Field(description="Private key of the certificate in PEM, as `file:/path`.")
    client_ca: PEMFile | None = Field(
        None,
        description="Certificate authorities of the proxies' certificates in PEM, as `file:/path`. Default: proxies "
        "show none, and each peer that reaches the port may ask.",
    )
    gateways: Sequence[PeerName] = Field(
        (),
        max_length=100,
        description="Names of the proxies that may ask, with `client_ca`: each is a whole subject alternative name of "
        "a certificate.",
    )

    @model_validator(mode="after")
    def _names_with_authorities(self) -> ServeTLSSettings:
        if bool(self.gateways) is (self.client_ca is None):
            raise ValueError("client_ca and gateways go together: one authority serves many workloads")
        return self

    @property
    def files(self) -> tuple[str, str]:
        """The paths of certificate and key."""
        return self.certificate.removeprefix("file:"), self.key.removeprefix("file:")


class PoolSettings(Section):
    """A provider of several endpoints that serve the same models: the gateway chooses the endpoint of each try by load
    and by the prompts that it has cached. Without `endpoints` and `service`, the endpoints are all addresses of the
    name in `base_url`: a headless Service.
    """

    endpoints: Sequence[HostPort] = Field(
        (),
        max_length=1000,
        description="Endpoints, each `host:port`; a name stands for all its addresses. At most 1000.",
    )
    service: ServiceName | None = Field(
        None,
        description="Kubernetes Service whose EndpointSlices list the endpoints, `name` or `namespace/name`. The "
        "gateway's service account must be able to list and watch them. The port is that of `base_url`.",
    )
    resolve: PositiveDuration = Field(5.0, ge=1, description="Time between two lookups of names, `1s` at least.")
    metrics: MetricsOf | None = Field(
        None,
        description="Names of the metrics that the endpoints have: `vllm`, `sglang`, `tgi`, `triton`, or `none` for "
        "servers without metrics. Default: those of the provider's kind, otherwise `none`.",
    )
    metrics_port: int | None = Field(
        None, ge=1, le=65535, description="Port of `/metrics`. Default: the endpoint's port. Triton's is 8002."
    )
    scrape: PositiveDuration = Field(
        1.0,
        ge=0.2,
        description="Time between two reads of an endpoint's metrics by one process, `200ms` at least. Each wait "
        "varies by a fifth.",
    )
    scorers: Mapping[ScorerName, Weight] = Field(
        default_factory=dict,
        description="Weights of the scorers, 0 to 100, where they differ from the usual ones: "
        + ", ".join(f"`{name}: {weight:g}`" for name, weight in WEIGHTS.items())
        + ". 0 turns a scorer off.",
    )
    saturated: SaturationSettings = SaturationSettings()
    prefix_ttl: PositiveDuration = Field(
        600.0, description="Time after which an endpoint is no longer expected to have a prompt's prefix cached."
    )
    max_queue: int = Field(
        256,
        ge=0,
        le=100_000,
        description="Most requests that wait in one gateway process while every endpoint is full, 0 to 100000. A "
        "further one goes to the next target of its virtual model, or gets 429.",
    )
    wait: Duration = Field(
        10.0,
        le=600,
        description="Longest wait for room at an endpoint, at most `10m`, of a request without another "
        "target. It then gets 429.",
    )
    spill: Duration = Field(
        0.0,
        le=600,
        description="Longest wait of a request that has another target behind the pool. It then goes to that target.",
    )
    priority: Mapping[Payer, Priority] = Field(
        default_factory=dict,
        max_length=256,
        description="Priorities by consumer or `team/NAME`, with `*`: `{prod-*: 1, team/batch: -1}`. The first match "
        "counts, others have 0. Requests of a higher priority leave the queue first. Below 0 a request never waits.",
    )
    picker: PickerAddress | None = Field(
        None,
        description="Endpoint picker that chooses the endpoint of each try in place of the gateway, "
        "`grpc://host:port`, or `grpcs://` with TLS: that of llm-d, or another one of the Gateway API Inference "
        "Extension. Scorers and queue of the gateway are then unused.",
    )
    picker_failure: Literal["closed", "open"] = Field(
        "closed",
        description="Effect of a failed first try, also of a picker that does not answer. `closed`: later tries ask "
        "the picker again. `open`: Envoy chooses the endpoint of later tries.",
    )
    picker_timeout: PositiveDuration = Field(
        10.0, le=600, description="Longest wait for the picker's answer, at most `10m`. Pickers may queue requests."
    )
    serve: HostPort | None = Field(
        None,
        description="Address, `host:port`, at which the processor is an endpoint picker of this pool for other "
        "proxies: the `endpointPickerRef` of an InferencePool. The first worker serves it. Its peers are not "
        "authenticated: let only those proxies reach it.",
    )
    serve_tls: ServeTLSSettings | None = Field(None, description="TLS of `serve`. Default: none.")
    serve_fallbacks: int = Field(
        0,
        ge=0,
        le=7,
        description="Further endpoints in each answer of `serve`, 0 to 7, for retries of proxies that read a list. "
        "Clusters of the type ORIGINAL_DST read one endpoint and fail on a list.",
    )
    tell_endpoint: bool = Field(
        False, description="Name the endpoint to clients in `x-ai-endpoint`. It shows addresses of pods."
    )

    @field_validator("endpoints")
    @classmethod
    def _ports(cls, value: Sequence[str]) -> Sequence[str]:
        for entry in value:
            if not 0 < int(entry.rpartition(":")[2]) < 65536:
                raise ValueError(f"{entry!r} has no port between 1 and 65535")
        if len({*value}) < len(value):
            raise ValueError("an endpoint stands in the list twice")
        return value

    @model_validator(mode="after")
    def _one_source(self) -> PoolSettings:
        if self.endpoints and self.service is not None:
            raise ValueError("give endpoints or service, not both")
        if self.serve_tls is not None and self.serve is None:
            raise ValueError("serve_tls needs serve")
        if self.serve is not None and self.picker is not None:
            raise ValueError("give serve or picker, not both: a pool has one picker")
        return self

    @property
    def weights(self) -> Mapping[str, float]:
        """The weight of each scorer."""
        return {name: self.scorers.get(name, weight) for name, weight in WEIGHTS.items()}

    def metrics_of(self, kind: str) -> MetricsOf:
        """The table of metrics for a provider of this kind."""
        if self.metrics is not None:
            return self.metrics
        return kind if kind in get_args(MetricsOf) else "none"  # type: ignore[return-value]

"""Settings of the place where Envoy reaches the processor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, StringConstraints, WithJsonSchema, model_validator

from extproc.settings.listener import PEMFile
from extproc.wire.transport import workers
from extproc.words.values import PeerName, Section, is_loopback

_Workers = Annotated[
    int,
    BeforeValidator(workers.read),
    Field(ge=1, le=workers.MOST),
    WithJsonSchema({"anyOf": [{"type": "integer", "minimum": 1, "maximum": workers.MOST}, {"const": workers.AUTO}]}),
]


class ProcessorTLSSettings(Section):
    """TLS between Envoys of other machines and the processor. Both sides show certificates. Changed files are read at
    the next connection.
    """

    certificate: PEMFile = Field(description="Certificate chain of the processor in PEM, as `file:/path`.")
    key: PEMFile = Field(description="Private key of the certificate in PEM, as `file:/path`.")
    client_ca: PEMFile = Field(
        description="Certificate authorities of the Envoys' certificates in PEM, as `file:/path`."
    )
    gateways: Sequence[PeerName] = Field(
        min_length=1,
        max_length=100,
        description="Names of the Envoys that may connect, 1 to 100: each is a whole subject alternative name of a "
        "certificate, such as `edge.example.com` or `spiffe://cluster.local/ns/edge/sa/gateway`.",
    )
    host: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9.-]{1,253}$")] = Field(
        description="DNS name by which the Envoys reach the processor. Its certificate has the name."
    )

    @property
    def files(self) -> tuple[str, str]:
        """The paths of certificate and key."""
        return self.certificate.removeprefix("file:"), self.key.removeprefix("file:")

    @property
    def paths(self) -> tuple[str, str, str]:
        """The paths of certificate, key and authorities."""
        return *self.files, self.client_ca.removeprefix("file:")


class ProcessorSettings(Section):
    """The address where Envoy reaches the processor. A process that can connect to it can read prompts and forge
    decisions.
    """

    socket: str | None = Field(
        None,
        description="Path of the processor's unix socket, at most 100 bytes. Its mode is 0600. Default: "
        "`/run/extproc/extproc.sock`.",
    )
    address: str | None = Field(
        None,
        description="Address of the processor, `host:port`, in place of `socket`, for an Envoy that shares no file "
        "system with it. On loopback, or with `tls`.",
    )
    tls: ProcessorTLSSettings | None = Field(
        None,
        description="TLS of `address`, for Envoys of other machines: attach mode with one processor for many gateways.",
    )
    transport: Literal["native", "grpcio"] = Field(
        "native",
        description="Transport between Envoy and the processor. `native`: the gateway's own, made for Envoy on a "
        "unix socket, at a fraction of the CPU time. `grpcio`: the official library. An `address` is always served by "
        "grpcio.",
    )
    workers: _Workers = Field(
        1,
        description="Processes of the processor, or `auto`: as many as cores that it may use. Each uses one core at "
        "most and has a socket of its own: `extproc.sock` becomes `extproc-0.sock`, `extproc-1.sock` and so on. Envoy "
        "sends a request to the worker with the fewest in flight. Several workers need a `socket`, and stores that "
        "processes share. Default: the environment variable EXTPROC_WORKERS, without it 1; with stores that processes "
        "cannot share always 1.",
    )

    @model_validator(mode="after")
    def _one(self) -> ProcessorSettings:
        if self.socket is not None and self.address is not None:
            raise ValueError("give socket or address, not both")
        if self.address is not None and "transport" in self.model_fields_set and self.transport == "native":
            raise ValueError("the native transport needs a socket; an address is served by grpcio")
        if self.socket is not None and len(self.socket.encode()) > 100:
            raise ValueError("the path of a unix socket has at most 100 bytes")
        if self.address is not None:
            host, _, port = self.address.rpartition(":")
            if not port.isdecimal() or not 0 < int(port) < 65536 or not host:
                raise ValueError("the address must be host:port")
            if self.tls is None and not is_loopback(host.strip("[]")):
                raise ValueError("an address other than loopback needs tls: the connection has no other protection")
            if self.workers > 1:
                raise ValueError("several workers need a socket: an address is one worker's")
        if self.tls is not None and self.address is None:
            raise ValueError("tls needs an address: a socket is protected by its mode")
        return self

    @property
    def path(self) -> str:
        return self.socket or workers.SOCKET

    def sockets(self, path: str | None = None) -> Sequence[str]:
        """The unix socket of each worker. `path` takes the place of `socket`."""
        path = path or self.path
        return [path] if self.workers == 1 else [workers.socket(path, number) for number in range(self.workers)]

"""EndpointSlices of a Kubernetes Service: listed once, then watched. The watch resumes where it ended, and lists again
when the server no longer has that place.

The API server is asked with the pod's service account, which needs `list` and `watch` of `endpointslices`. The official
client was left out: its models of the whole API are not needed for two requests.

Source: https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes,
https://kubernetes.io/docs/reference/kubernetes-api/service-resources/endpoint-slice-v1/
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import quote, urlencode

import msgspec

from extproc.wire.framing import shapes
from extproc.wire.outbound.pool import AnswerError, ConnectionPool
from extproc.words.urls import host_port

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Files of the pod's service account: token, ca.crt, namespace."""
_MOST_LIST = 32 << 20  # bytes of a list
_MOST_WATCH = 1 << 30  # bytes of one watch, which ends after a few minutes anyhow
_MOST_LINE = 4 << 20
_LIST = 30.0  # seconds for a list
_WATCH = 300  # seconds for which the server is asked to go on; it may end sooner
_GONE = 410


class NotInClusterError(Exception):
    """No API server can be asked: the process runs in no pod, or is refused. The message is the reason."""


class GoneError(Exception):
    """The API server no longer has the place from which to watch."""


class _Condition(msgspec.Struct):
    ready: bool | None = None
    serving: bool | None = None
    terminating: bool | None = None


class _Reference(msgspec.Struct):
    name: str = ""


class _Endpoint(msgspec.Struct, rename="camel"):
    addresses: list[str] = []
    conditions: _Condition = msgspec.field(default_factory=_Condition)
    target_ref: _Reference | None = None


class _Metadata(msgspec.Struct, rename="camel"):
    name: str = ""
    resource_version: str = ""


class _Slice(msgspec.Struct):
    metadata: _Metadata = msgspec.field(default_factory=_Metadata)
    endpoints: list[_Endpoint] | None = None


class _List(msgspec.Struct):
    metadata: _Metadata
    items: list[_Slice] | None = None


class _Event(msgspec.Struct):
    type: str
    object: msgspec.Raw


class _Status(msgspec.Struct):
    code: int = 0


class Slices:
    """The slices of a Service as list and watch tell them. `version` is the place to watch from."""

    def __init__(self, port: int) -> None:
        self.version = ""
        self._port = port
        self._slices: dict[str, _Slice] = {}

    def replace(self, page: bytes) -> None:
        """Take a list in place of everything known. Raises msgspec.DecodeError."""
        found = shapes.decode(page, _List)
        self.version = found.metadata.resource_version
        self._slices = {each.metadata.name: each for each in found.items or ()}

    def change(self, line: bytes) -> bool:
        """Take one event of a watch. True when slices changed. Raises GoneError, msgspec.DecodeError."""
        event = shapes.decode(line, _Event)
        if event.type == "ERROR":
            raise GoneError(str(shapes.decode(bytes(event.object), _Status).code))
        found = shapes.decode(bytes(event.object), _Slice)
        self.version = found.metadata.resource_version
        if event.type == "DELETED":
            return self._slices.pop(found.metadata.name, None) is not None
        if event.type in ("ADDED", "MODIFIED"):
            self._slices[found.metadata.name] = found
            return True
        return False  # a BOOKMARK has only the version

    def endpoints(self) -> Mapping[str, str]:
        """Addresses of the pods that are ready and do not terminate, `ip:port`, with the pods' names."""
        found: dict[str, str] = {}
        for each in self._slices.values():
            for endpoint in each.endpoints or ():
                if endpoint.conditions.ready is not False and not endpoint.conditions.terminating:
                    name = "" if endpoint.target_ref is None else endpoint.target_ref.name
                    for address in endpoint.addresses[:1]:  # all addresses of an endpoint are equal
                        found[host_port(address, self._port)] = name
        return found


class Lines:
    """Bytes of a watch to its lines. `take` gets each whole line."""

    def __init__(self, take: Callable[[bytes], None]) -> None:
        self._take = take
        self._rest = b""

    def __call__(self, data: bytes) -> None:
        *whole, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > _MOST_LINE:
            raise AnswerError("an event of the API server is too large")
        for line in whole:
            if line.strip():
                self._take(line)


async def follow_slices(service: str, port: int, take: Callable[[Mapping[str, str]], None]) -> None:
    """Call `take` with the endpoints of `[namespace/]service` at first and after each change. Ends when the place to
    watch from is gone: the caller begins again. Raises NotInClusterError, OSError, TimeoutError, AnswerError.
    """
    server, namespace, ca = _api_server()
    lister, watcher = ConnectionPool(server, ca=ca, most=_MOST_LIST), ConnectionPool(server, ca=ca, most=_MOST_WATCH)
    where, _, name = service.rpartition("/")
    path = f"/apis/discovery.k8s.io/v1/namespaces/{quote(where or namespace)}/endpointslices"
    query = {"labelSelector": f"kubernetes.io/service-name={name}"}
    slices = Slices(port)
    try:
        async with asyncio.timeout(_LIST):
            status, _, page = await lister.ask(f"{path}?{urlencode(query)}", None, _headers(), "GET")
        _check(status, server)
        slices.replace(page)
        take(slices.endpoints())

        def changed(line: bytes) -> None:
            if slices.change(line):
                take(slices.endpoints())

        while True:
            more = {"watch": "true", "allowWatchBookmarks": "true", "resourceVersion": slices.version}
            more |= {"timeoutSeconds": str(_WATCH)}
            async with asyncio.timeout(_WATCH + _LIST):
                status, _, _ = await watcher.ask(
                    f"{path}?{urlencode(query | more)}", None, _headers(), "GET", sink=Lines(changed)
                )
            if status == _GONE:
                return
            _check(status, server)
            await asyncio.sleep(random.uniform(0.1, 0.5))  # noqa: S311 - no secret; a server that ends watches at once
    except GoneError:
        return
    except msgspec.DecodeError as error:
        raise AnswerError(f"the API server's answer is not of EndpointSlices: {error}") from None
    finally:
        lister.close()
        watcher.close()


def _api_server(environment: Mapping[str, str] = os.environ) -> tuple[str, str, str | None]:
    """Address of the API server, the pod's namespace, and the file of its authorities. Raises NotInClusterError."""
    host, port = environment.get("KUBERNETES_SERVICE_HOST"), environment.get("KUBERNETES_SERVICE_PORT", "443")
    if not host:
        raise NotInClusterError("`service` needs Kubernetes: KUBERNETES_SERVICE_HOST is not set in this process")
    scheme = environment.get("KUBERNETES_SERVICE_SCHEME", "https")
    url = f"{scheme}://{host_port(host, port)}"
    try:
        namespace = (account() / "namespace").read_text(encoding="utf-8").strip()
    except OSError:
        namespace = "default"
    ca = str(account() / "ca.crt") if scheme == "https" else None
    return url, namespace, ca


def account() -> Path:
    """Directory of the service account's files."""
    return Path(os.environ.get("KUBERNETES_SERVICE_ACCOUNT", ACCOUNT))


def _headers() -> Mapping[str, str]:
    """The account's token, read anew: Kubernetes renews it every hour."""
    try:
        token = (account() / "token").read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        raise NotInClusterError(f"the service account's token cannot be read in {account()}") from None
    return {"authorization": f"Bearer {token}", "accept": "application/json"}


def _check(status: int, server: str) -> None:
    if status in (401, 403):
        raise NotInClusterError(
            f"{server} refuses: {status}; the service account needs list and watch of endpointslices "
            "(values `pools.rbac` of the chart)"
        )
    if status != 200:
        raise AnswerError(f"{server} answers {status}")

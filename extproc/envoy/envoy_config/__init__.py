"""Filter YAML → Envoy configuration. Only this package uses Envoy's configuration messages.

identity.py   credentials that Envoy verifies: tokens, certificates
public.py     the listener clients talk to: the edge, the gateway attachment, failover by retries
tries.py      an internal listener and a hop cluster for each provider: one try
pools.py      pools: clusters with several endpoints, one chosen for each try
upstream.py   the provider's own cluster: address, TLS, limits, outlier detection
mcp.py        a private listener through which the processor asks MCP servers
processor.py  this service as Envoy sees it: cluster, ext_proc, gRPC access log
replies.py    Envoy's own answers in OpenAI's shape
secrets.py    the providers' keys, in files that Envoy watches
dynamic.py    the parts that follow the settings, for a processor that gives them to Envoy
attach.py     the one filter for an Envoy of another team
others.py     an expression for every header that is not on a list
typed.py      messages as values
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from envoy_data_plane.envoy.config.bootstrap import v3 as bootstrapv3
from envoy_data_plane.envoy.config.cluster import v3 as clusterv3
from envoy_data_plane.envoy.config.core import v3 as corev3
from envoy_data_plane.envoy.config.listener import v3 as listenerv3
from envoy_data_plane.envoy.config.overload.v3 import OverloadManager, ResourceMonitor
from envoy_data_plane.envoy.config.route import v3 as routev3
from envoy_data_plane.envoy.extensions.bootstrap.internal_listener.v3 import InternalListener
from envoy_data_plane.envoy.extensions.resource_monitors.downstream_connections.v3 import DownstreamConnectionsConfig
from envoy_data_plane.envoy.extensions.transport_sockets.tls import v3 as tlsv3
from envoy_data_plane.google.protobuf import Struct

from extproc.envoy.envoy_config import identity, pools, private, processor, public, traces, tries, upstream
from extproc.envoy.envoy_config.attach import attach, attach_doubts, attach_problems
from extproc.envoy.envoy_config.secrets import write_secrets
from extproc.envoy.envoy_config.typed import CA_FILE, extension, pack, socket_address, to_json, to_yaml
from extproc.settings.config import Settings
from extproc.words import contract

__all__ = (
    "Resources",
    "a_try",
    "attach",
    "attach_doubts",
    "attach_problems",
    "bootstrap",
    "render",
    "shared",
    "write_secrets",
)


@dataclass(frozen=True)
class Resources:
    """Parts of Envoy's configuration that follow the settings. `routes` are the public listener's; `secrets` has the
    file names of its certificate.
    """

    listeners: Sequence[listenerv3.Listener]
    clusters: Sequence[clusterv3.Cluster]
    routes: Sequence[routev3.RouteConfiguration] = ()
    secrets: Sequence[tlsv3.Secret] = ()


def shared(
    settings: Settings,
    places: Mapping[str, str],
    ca_file: str = CA_FILE,
    *,
    socket: str | None = None,
    dynamic: bool = False,
) -> Resources:
    """All resources except the tries.

    With `dynamic`, Envoy gets the public listener's routes separately, so that a change keeps its connections; and its
    certificate, so that Envoy follows the files. `places` are the tries' names by provider. `socket` replaces the
    processor's socket in the settings.
    """
    return Resources(
        listeners=[public.listener(settings, dynamic=dynamic), *private.listener(settings, socket, places)],
        clusters=[
            public.no_order(),
            *identity.jwks_clusters(settings, ca_file),
            *traces.clusters(settings, ca_file),
        ],
        routes=[public.routes(settings)] if dynamic else [],
        secrets=identity.tls_secrets(settings) if dynamic else [],
    )


def a_try(settings: Settings, name: str, place: str, secrets_dir: str, ca_file: str = CA_FILE) -> Resources:
    """Resources of the try at the provider `name`: the internal listener `place`, the cluster that leads to it, and the
    provider's cluster.
    """
    return Resources(
        listeners=[tries.listener(settings, name, secrets_dir, place)],
        clusters=[
            tries.hop_cluster(settings, place),
            upstream.cluster(settings, name, ca_file, place),
            *pools.picker_cluster(settings, name, ca_file, place),
        ],
    )


def bootstrap(
    settings: Settings,
    *,
    secrets_dir: str,
    socket: str | None = None,
    admin_port: int | None = None,
    admin_socket: str | None = None,
    ca_file: str = CA_FILE,
    dynamic: bool = False,
) -> dict[str, Any]:
    """Envoy's whole bootstrap, as plain JSON, without any secret: see `write_secrets`.

    `socket` replaces the processor's socket in the settings. Envoy's admin interface can stop Envoy and show its
    memory, so it is off, on a loopback port, or on a unix socket. With `dynamic`, Envoy asks the processor for
    listeners and clusters.
    """
    found: list[Resources] = []
    if not dynamic:  # all providers, because a disabled one can be enabled while Envoy runs
        places = {name: contract.try_cluster(name) for name in settings.hops}
        found = [shared(settings, places, ca_file, socket=socket)]
        found += [a_try(settings, name, place, secrets_dir, ca_file) for name, place in places.items()]
    own = [processor.cluster(settings, socket), *processor.worker_clusters(settings, socket)]
    message = bootstrapv3.Bootstrap(
        node=corev3.Node(id="gateway", cluster="extproc"),
        static_resources=bootstrapv3.BootstrapStaticResources(
            listeners=[listener for part in found for listener in part.listeners],
            clusters=[*own, *(cluster for part in found for cluster in part.clusters)],
        ),
        dynamic_resources=_dynamic(settings) if dynamic else None,
        admin=_admin(admin_port, admin_socket),
        overload_manager=_overload(settings),
        layered_runtime=_runtime(),
        bootstrap_extensions=[extension("envoy.bootstrap.internal_listener", _between_listeners(settings))],
    )
    return to_json(message)


def render(tree: dict[str, Any]) -> str:
    """`bootstrap` as YAML."""
    header = "# Generated by extproc envoy; do not edit. Change the filter YAML and generate it again.\n"
    return header + to_yaml(tree)


def _dynamic(settings: Settings) -> bootstrapv3.BootstrapDynamicResources:
    source = processor.discovered(settings)
    return bootstrapv3.BootstrapDynamicResources(lds_config=source, cds_config=source)


def _admin(port: int | None, socket: str | None) -> bootstrapv3.Admin | None:
    if socket is not None:
        return bootstrapv3.Admin(address=corev3.Address(pipe=corev3.Pipe(path=socket, mode=0o600)))
    return None if port is None else bootstrapv3.Admin(address=socket_address("127.0.0.1", port))


def _runtime() -> bootstrapv3.LayeredRuntime:
    """Size limit for the expressions of `others`, in RE2 instructions. Envoy's default of 100 is meant for untrusted
    expressions.
    """
    limit = Struct.from_dict({"re2.max_program_size.error_level": 100_000})
    return bootstrapv3.LayeredRuntime(layers=[bootstrapv3.RuntimeLayer(name="static", static_layer=limit)])


def _between_listeners(settings: Settings) -> InternalListener:
    """Buffers of connections inside Envoy. Its maximum is 8 MiB."""
    return InternalListener(buffer_size_kb=min(settings.limits.answer_buffer >> 10, 8192))


def _overload(settings: Settings) -> OverloadManager:
    """Close connections above the limit at once, so that existing ones keep working."""
    limit = DownstreamConnectionsConfig(max_active_downstream_connections=settings.listener.max_connections)
    monitor = ResourceMonitor(
        name="envoy.resource_monitors.global_downstream_max_connections", typed_config=pack(limit)
    )
    return OverloadManager(resource_monitors=[monitor])

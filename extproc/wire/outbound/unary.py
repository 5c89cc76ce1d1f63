"""Unary gRPC calls to other services, as bytes. The official library makes them: calls are few, and no request
waits.
"""

from __future__ import annotations

import ssl
from pathlib import Path

import grpc

_NO_PROXY = (("grpc.enable_http_proxy", 0),)


class UnaryCalls:
    """Unary calls to services by address, `http://host:port` or `https://…`. Connections are kept."""

    def __init__(self) -> None:
        self._channels: dict[str, grpc.aio.Channel] = {}

    async def call(self, address: str, path: str, request: bytes, timeout: float) -> str:  # noqa: ASYNC109
        """Name of the gRPC status of a failed call, also one over `timeout` seconds; empty for a successful call."""
        if (channel := self._channels.get(address)) is None:
            channel = self._channels[address] = _channel(address)
        try:
            await channel.unary_unary(path)(request, timeout=timeout)
        except grpc.aio.AioRpcError as error:
            return str(error.code().name)
        return ""

    async def close(self) -> None:
        for channel in self._channels.values():
            await channel.close()
        self._channels.clear()


def _channel(address: str) -> grpc.aio.Channel:
    scheme, _, host = address.partition("://")
    if scheme == "http":
        return grpc.aio.insecure_channel(host, options=_NO_PROXY)
    authorities = ssl.get_default_verify_paths().cafile  # authorities of this machine, not those in grpc
    roots = Path(authorities).read_bytes() if authorities else None
    return grpc.aio.secure_channel(host, grpc.ssl_channel_credentials(roots), options=_NO_PROXY)

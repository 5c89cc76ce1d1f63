"""Client certificates: the consumer behind the names of a certificate that Envoy verified."""

from __future__ import annotations

from collections.abc import Mapping

from extproc.access.auth.access import Identity
from extproc.words import contract


def place(name: str) -> str:
    """The attribute of Envoy's connection for a name in the settings: URI SAN, DNS SAN or subject."""
    if "://" in name:
        return contract.URI_SAN
    return contract.SUBJECT if "=" in name else contract.DNS_SAN


class Certificates:
    """Finds the consumer of a certificate by its first URI SAN, else its first DNS SAN, else its subject."""

    def __init__(self, names: Mapping[str, Identity]) -> None:
        self._known = {(place(name), name): identity for name, identity in names.items()}

    def find(self, connection: Mapping[str, object]) -> Identity | None:
        for where in contract.PEER_ATTRIBUTES:
            name = connection.get(where)
            if isinstance(name, str) and (found := self._known.get((where, name))) is not None:
                return found
        return None

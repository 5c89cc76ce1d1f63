"""Envoy's resources as a processor sends them: the messages of `envoy_config` as bytes, by name.

A changed try gets a new name (`try-openai~1f3a9c20`), and so does its secret's file. With the old name, Envoy would
change listener, cluster and secret one after the other: a key could reach the wrong address, pooled connections of the
hop would keep the old listener, and a retry could reach another provider than its request was made for.
"""

from __future__ import annotations

import hashlib

from betterproto2 import Message

from extproc.envoy.envoy_config import Resources, a_try, shared
from extproc.envoy.resources import Made, place
from extproc.settings import bound
from extproc.settings.config import Settings
from extproc.words import contract


def make(
    settings: Settings, text: str, secrets_dir: str, before: Made | None = None, *, socket: str | None = None
) -> Made:
    """Resources for `settings`, whose YAML is `text`. `before` are Envoy's current resources. `socket` replaces the
    processor's socket in the settings.
    """
    made = Made(bound.digest(settings), text, {}, {}, {}, {}, {}, {})
    for name in settings.hops:
        plain = contract.try_cluster(name)
        found = a_try(settings, name, plain, secrets_dir)
        digest = _digest(found)
        where = place(name, digest, before)
        _add(made, found if where == plain else a_try(settings, name, where, secrets_dir))
        made.places[name], made.digests[name] = where, digest
    _add(made, shared(settings, made.places, socket=socket, dynamic=True))
    return made


def _add(made: Made, found: Resources) -> None:
    made.listeners.update((each.name, bytes(each)) for each in found.listeners)
    made.clusters.update((each.name, bytes(each)) for each in found.clusters)
    made.secrets.update((each.name, bytes(each)) for each in found.secrets)
    made.routes.update((each.name, bytes(each)) for each in found.routes)


def _digest(found: Resources) -> str:
    digest = hashlib.blake2b(digest_size=4)
    parts: list[Message] = [*found.listeners, *found.clusters]
    for part in parts:
        digest.update(bytes(part))
    return digest.hexdigest()

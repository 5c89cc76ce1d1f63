"""The way a request reaches each of its targets: the API of the try, and the rewriting of the request for it.

Select writes each adaptation once to the targets of a request. Forward, the stages of the answer and `explain` read it
from the target.
"""

from __future__ import annotations

from dataclasses import replace

from extproc.dialects import provider_apis
from extproc.routing.catalog import Catalog
from extproc.upstream.providers import kinds
from extproc.words.api import ClientAPI
from extproc.words.contract import Service
from extproc.words.dialect import HOSTED
from extproc.words.exchange import Adaptation, Exchange, Target


def adapt(target: Target, catalog: Catalog, exchange: Exchange) -> Target:
    """The target with its `adaptation` to a request. Equal requests get the same object."""
    client, ask = exchange.request.dialect, exchange.request.ask
    key = client.name, exchange.route.traces, ask.stream, HOSTED in ask.needs
    found = target.adapted.get(key)
    if found is None:
        adaptation = _adaptation(target, catalog, client, traces=key[1], stream=key[2], hosted=key[3])
        found = target.adapted[key] = replace(target, adaptation=adaptation)
    return found


def _adaptation(
    target: Target, catalog: Catalog, client: ClientAPI, *, traces: bool, stream: bool, hosted: bool
) -> Adaptation:
    dialect = catalog.api(target, client) or client.name
    kind = catalog.providers[target.provider].kind
    provider, own = kinds()[kind], dialect == client.name
    anew = own and (traces or (target.prompt_cache and marks_caches(dialect)))
    key = client.offers.reuse.cache_key if own and target.prompt_cache and client.name in provider.cache_keys else ""
    needed = None
    # Targets differ in their path if it holds the model's name.
    if own and not anew and client.fields.model is not None:
        if provider.adapt is None or client.endpoints.forms:  # requests in forms are patched, never rewritten
            return Adaptation(dialect, cache_key=key)
        needed = provider.adapts
    service = Service(
        kind,
        dialect,
        target.model,
        target.max_output_tokens or target.known_output,
        reasoning=target.supports is None or "reasoning" in target.supports,
        anew=anew,
        cache=target.prompt_cache,
        drop_hosted=not own and hosted,
        stream=stream,
    )
    return Adaptation(dialect, own, service, needed, key)


def marks_caches(dialect: str) -> bool:
    """True if requests of the dialect can mark the content that a prompt cache should keep."""
    api = provider_apis().get(dialect)
    return api is not None and api.able.cache_marks

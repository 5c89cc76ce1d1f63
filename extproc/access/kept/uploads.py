"""Resume and HandOver: uploads in parts, whose later requests go to an address that an answer named.

    answer    https://provider/…?upload_id=AHm…  ─HandOver─►  https://gateway/…/kept_<session>?key=kept_<credential>
    part      ─Resume─►  the credential, for Authenticate     ─Open─►  the session, at its provider

SDKs send no credential with the parts, because the provider's address is enough there. So the gateway's address has the
credential of the first request, encrypted for this session alone: it is checked again with each part, and an address in
a client's log holds no key.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from urllib.parse import parse_qsl, quote, urlsplit

from extproc.access.auth import credential
from extproc.access.kept import Ids, Object, owner
from extproc.dialects import client_apis
from extproc.upstream.providers import ProviderSettings
from extproc.words.api import Upload
from extproc.words.dialect import ID, KEPT
from extproc.words.errors import PROVIDER_BAD_ANSWER, Refusal
from extproc.words.exchange import Exchange

KEY = "key"
"""Query parameter with the sealed credential."""
READS = ":authority", "x-forwarded-proto"
"""Request headers from which the gateway's own address is written."""
_host = re.compile(r"[A-Za-z0-9._:\[\]-]{1,255}").fullmatch


def served(providers: Iterable[ProviderSettings]) -> Sequence[Upload]:
    """Uploads of the APIs that some provider speaks."""
    spoken = {name for entry in providers for name in entry.provider.dialects}
    found = [each.offers.stored.upload for name, each in client_apis().items() if name in spoken]
    return [upload for upload in found if upload is not None]


def stages(providers: Iterable[ProviderSettings], ids: Ids) -> tuple[Sequence[Resume], Sequence[HandOver]]:
    """The stages, where a provider has such uploads."""
    return ([Resume(ids)], [HandOver(ids)]) if served(providers) else ((), ())


class Resume:
    """For a part of a file: opens the sealed credential in the address. Authenticate refuses one that it does not
    open.
    """

    def __init__(self, ids: Ids) -> None:
        self._ids = ids

    def __call__(self, exchange: Exchange) -> None:
        request = exchange.request
        upload = request.dialect.offers.stored.upload
        if upload is None or request.operation != upload.operation:
            return
        path, _, query = request.head.path.partition("?")
        sealed = dict(parse_qsl(query, max_num_fields=64)).get(KEY, "")
        if sealed.startswith(KEPT):
            opened = self._ids.open_text(f"{upload.prefix}{KEPT}{request.endpoint.id}", sealed.removeprefix(KEPT))
            request.head.path = f"{path}?{KEY}={quote(opened or sealed, safe='')}"


class HandOver:
    """Replaces the provider's address of the parts by the gateway's, and withholds the headers that name the session.
    502 for an address that cannot be replaced: with the provider's, a file would pass the gateway by.
    """

    def __init__(self, ids: Ids) -> None:
        self._ids = ids

    def __call__(self, exchange: Exchange) -> None:
        request, answer = exchange.request, exchange.answer
        upload, target = request.dialect.offers.stored.upload, answer.target
        if upload is None:
            return
        assert target is not None, "Origin found it"
        answer.withheld += upload.withheld
        if (address := answer.head.headers.get(upload.header)) is None:
            return
        session = dict(parse_qsl(urlsplit(address).query, max_num_fields=64)).get(upload.parameter, "")
        made = Object(target.provider, target.name, f"{upload.prefix}{session}")
        sealed, headers = self._ids.seal(owner(exchange.consumer), made), request.head.headers
        host, scheme = headers.get(":authority", ""), headers.get("x-forwarded-proto", "http")
        if sealed is None or not _host(host) or scheme not in ("http", "https"):
            message = f"Provider {target.provider} named an address for the file that the gateway cannot stand for."
            raise Refusal(PROVIDER_BAD_ANSWER, message)
        path = upload.client_path.replace(ID, sealed.removeprefix(upload.prefix))
        if key := credential(request.head, request.dialect.endpoints.key_parameter):
            path += f"?{KEY}={KEPT}{self._ids.seal_text(target.provider, sealed, key)}"
        answer.told[upload.header] = f"{scheme}://{host}{path}"

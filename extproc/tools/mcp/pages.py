"""Long results of tools as pages, in profiles with `pages`: the call's result has the first page and a link to the next
one, which the client reads as a resource of the gateway.

    LINK   extproc-result://<id>/<bytes before the page>

The whole text is kept beside the turns of conversations (`stores.cache`), under a key made from the consumer, the
profile and the id: nobody else reads it, at any replica. It is text that guardrails let through. Reading a page of an
untrusted tool's result taints the run as the call did.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import secrets
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from extproc.cache.answers import Answers
from extproc.cache.entry import Entry
from extproc.stores import StoreError
from extproc.tools.mcp.call import CALL, TOOLS_CALL, Call, owner
from extproc.tools.mcp.refusals import unknown
from extproc.tools.mcp.results import written
from extproc.tools.taint import Taint
from extproc.wire.framing import Frame, Framing
from extproc.words.exchange import Exchange
from extproc.words.values import show_size

LINK = "extproc-result://"
"""Beginning of the URIs of pages."""
_read_link = re.compile(LINK + r"([0-9a-f]{32})/([1-9][0-9]{0,9})").fullmatch
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_encode = msgspec.json.encode


class Pages:
    """Kept texts, and their pages. `answers` has a store for turns; without one no text is kept."""

    def __init__(self, answers: Answers | None, taint: Taint) -> None:
        self._answers = None if answers is None else answers.turns
        self._taint = taint

    async def keep(self, exchange: Exchange, text: bytes) -> str:
        """The id of a kept text; empty if it could not be kept."""
        call, id = exchange.features[CALL], secrets.token_hex(16)
        if self._answers is None or call.settings.pages is None:
            return ""
        source = f"{call.server}/{call.tool}" if call.policy is not None and call.policy.untrusted else ""
        entry = Entry(self._answers.now(), text, source)
        whose = self._answers.owner(exchange.consumer.name)
        done = await self._answers.keep(self._key(exchange, id), entry, whose, call.settings.pages.keep)
        return id if done else ""

    async def read(self, exchange: Exchange, uri: str) -> dict[str, Any]:
        """The result of `resources/read` for a page. Raises Refusal if it is no longer kept, or another consumer's."""
        call, link = exchange.features[CALL], _read_link(uri)
        if link is None or self._answers is None or call.settings.pages is None:
            raise unknown("resources/read", uri)
        found, start = await self._answers.find(self._key(exchange, link[1])), int(link[2])
        if found is None or start >= len(found.body):
            raise unknown("resources/read", uri)
        if found.dialect:
            with contextlib.suppress(StoreError):  # this process knows the run anyway
                await self._taint.mark(exchange, found.dialect)
        end = page_end(found.body, start, call.settings.pages.size)
        contents = [_page(uri, found.body[start:end].decode(errors="replace"))]
        if end < len(found.body):
            contents.append(_page(uri := f"{LINK}{link[1]}/{end}", f"There is more: read the resource {uri}."))
        return {"contents": contents}

    def _key(self, exchange: Exchange, id: str) -> bytes:
        assert self._answers is not None
        digest = hashlib.blake2b(key=self._answers.secret[:64], digest_size=32, person=b"page")
        for part in (owner(exchange), id):
            data = part.encode(errors="surrogatepass")
            digest.update(len(data).to_bytes(4) + data)
        return digest.digest()


def _page(uri: str, text: str) -> dict[str, str]:
    return {"uri": uri, "mimeType": "text/plain", "text": text}


def page_end(text: bytes, start: int, size: int) -> int:
    """The end of the page that begins at `start`: never within a character, behind a line where one ends late in it."""
    end = min(start + size, len(text))
    if end == len(text):
        return end
    if (line := text.rfind(b"\n", start + size // 2, end)) >= 0:
        return line + 1
    while end > start + 1 and text[end] & 0xC0 == 0x80:
        end -= 1
    return end


class CutResult:
    """Cuts the text of a call's result to its first page, and links the next one. Other contents stay."""

    changes_length = True

    def __init__(self, pages: Pages) -> None:
        self._pages = pages

    def reads(self, exchange: Exchange) -> bool:
        """True if the answer has to be read."""
        return exchange.request.operation == TOOLS_CALL and exchange.features[CALL].settings.pages is not None

    def needed(self, exchange: Exchange, framing: Framing) -> bool:  # noqa: ARG002
        return self.reads(exchange)

    async def __call__(self, exchange: Exchange, events: Sequence[Frame], end: bool) -> Sequence[Frame]:  # noqa: ARG002
        pages = exchange.features[CALL].settings.pages
        assert pages is not None
        return [
            await self._cut(exchange, event, pages.size) if event.data and len(event.data) > pages.size else event
            for event in events
        ]

    async def _cut(self, exchange: Exchange, event: Frame, size: int) -> Frame:
        try:
            message = _fields(event.data or b"")
            result = msgspec.json.decode(message["result"], type=dict[str, Any])
        except (msgspec.DecodeError, KeyError, UnicodeError, RecursionError):
            return event
        text, others = _text_of(result)
        if len(text) <= size:
            return event
        first = page_end(text, 0, size)
        content = [{"type": "text", "text": text[:first].decode(errors="replace")}]
        content += await self._rest(exchange, text, first)
        kept = {name: value for name, value in result.items() if name != "structuredContent"}
        return written(event, _encode({**message, "result": {**kept, "content": [*content, *others]}}))

    async def _rest(self, exchange: Exchange, text: bytes, first: int) -> list[dict[str, Any]]:
        id, cut = await self._pages.keep(exchange, text), f"cut after {show_size(first)} of {show_size(len(text))}"
        if not id:
            return [{"type": "text", "text": f"The result was {cut}, and the rest was not kept: ask for less."}]
        uri, rest = f"{LINK}{id}/{first}", len(text) - first
        told = {"type": "text", "text": f"The result was {cut}. Read on in the resource {uri}, or ask for less."}
        link = {"type": "resource_link", "uri": uri, "name": f"The rest of {exchange.features[CALL].name}"}
        return [told, {**link, "mimeType": "text/plain", "size": rest}]


def _text_of(result: Mapping[str, Any]) -> tuple[bytes, list[Any]]:
    """The text of a result, and its contents that have none. Structured content is text, unless the text repeats it."""
    content, texts, others = result.get("content"), [], []
    for each in content if isinstance(content, list) else ():
        inner = each.get("resource") if isinstance(each, dict) and each.get("type") == "resource" else each
        if isinstance(inner, dict) and isinstance(said := inner.get("text"), str):
            texts.append(said)
        else:
            others.append(each)
    text, structured = "\n".join(texts).encode(errors="replace"), _encode(result.get("structuredContent", ""))
    return text if len(structured) <= len(text) else text + b"\n" * bool(text) + structured, others


def is_page(call: Call) -> bool:
    """True if a message is about a page."""
    return call.settings.pages is not None and call.name.startswith(LINK)

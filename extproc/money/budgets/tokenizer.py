"""Tokens of text at OpenAI's models since GPT-4o, by tiktoken.

The ranks of o200k_base are shipped (`data/`), as tiktoken would download them. Reading them takes 0.4 s and keeping
them 80 MB, so the gateway runs this file as a process of its own, see `counter`. Until the ranks are read, there are no
counts.

tiktoken gets at most `_SLICE` characters at a time: a megabyte of spaces ends it with a panic. A slice ends where the
encoding always begins a new word, so the slices' counts add up to that of the text. If a text has no such place, each
byte counts as a token, which is the maximum.
"""

from __future__ import annotations

import base64
import hashlib
import logging
import lzma
import re
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from extproc.wire.outbound.helper import serve

if TYPE_CHECKING:
    import tiktoken

    from extproc.words.dialect import Fields

_RANKS = "o200k_base.tiktoken.xz"
_SHA256 = "446a9538cb6c348e3516120d7c08b09f57c36495e2acfffe59a5bf8b0cfb1a2d"
# Pieces into which tiktoken's o200k_base splits text before it looks up ranks.
_WORD = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]%s[\p{Ll}\p{Lm}\p{Lo}\p{M}]%s(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
_WORDS = _WORD % ("*", "+") + _WORD % ("+", "*") + r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_SLICE = 32_000
# Places where a new word always begins: after ASCII letters before any ASCII but letters and apostrophes, after digits
# before anything but digits, after Chinese, Japanese and Korean also before their punctuation, and after a line's end
# before an ASCII letter or digit.
_BREAK = re.compile(
    r"(?<=[A-Za-z])(?=[\x00-&(-@\[-`{-\x7f])|(?<=[0-9])(?=[\x00-/:-\x7f])|(?<=\n)(?=[0-9A-Za-z])"
    r"|(?<=[\u4e00-\u9fa5\u3041-\u3096\u30a1-\u30fa\uac00-\ud7a3])(?=[\x00-&(-@\[-`{-\x7f\u3001\u3002\uff01\uff0c\uff1a\uff1b\uff1f])"
)

# Upper bounds of a prompt's tokens beside its strings: the tokens around a message (`<|start|>`, `<|message|>`,
# `<|end|>`) and around a call, the commas, brackets and comments of the tools. The notation is that of
# https://github.com/openai/harmony and of https://cookbook.openai.com/examples/how_to_count_tokens_with_tiktoken.
_REQUEST, _NODE, _ENTRY, _LINE = 32, 2, 3, 3

_MODELS = ("gpt-4o", "chatgpt-4o", "gpt-4.1", "gpt-4.5", "gpt-5", "o1", "o3", "o4-mini", "ft:gpt-4o", "ft:gpt-4.1")
_IDLE = 120.0  # seconds after which the process ends
_log = logging.getLogger("extproc")


class _Ranks:
    """The ranks, read once, on a thread of its own."""

    def __init__(self) -> None:
        self.encoding: tiktoken.Encoding | None = None
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def load(self) -> threading.Thread:
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._read, name="tokenizer", daemon=True)
                self._thread.start()
            return self._thread

    def _read(self) -> None:
        try:
            import tiktoken  # noqa: PLC0415 - few processes count tokens

            raw = lzma.decompress(Path(__file__).with_name("data").joinpath(_RANKS).read_bytes())
        except (ImportError, OSError, lzma.LZMAError):
            _log.error("The ranks of the tokenizer cannot be read; tokens are counted by bytes.")
            return
        if hashlib.sha256(raw).hexdigest() != _SHA256:
            _log.error("The ranks of the tokenizer are not OpenAI's; tokens are counted by bytes.")
            return
        pairs = (line.split() for line in raw.splitlines())
        ranks = {base64.b64decode(token): int(rank) for token, rank in pairs}
        self.encoding = tiktoken.Encoding("o200k_base", pat_str=_WORDS, mergeable_ranks=ranks, special_tokens={})


_ranks = _Ranks()


def load() -> threading.Thread:
    """Begin to read the ranks, once. The returned thread ends when the ranks are usable, or could not be read."""
    return _ranks.load()


def fits(kind: str, model: str) -> bool:
    """True for a provider (its `kind` in the settings) and a model known to use this encoding.

    False for Azure, whose deployments can have any name, and for OpenAI's later models, whose names are unknown.
    """
    if kind != "openai":
        return False
    return any(model == name or model.startswith((f"{name}-", f"{name}.", f"{name}:")) for name in _MODELS)


def about(text: str) -> int | None:
    """The tokens of a text, at most one too many for each 32,000 characters. None if counting is not possible. Waits
    for the ranks, so it is for threads.
    """
    load().join()
    encoding = _ranks.encoding
    if encoding is None:
        return None
    return sum(len(encoding.encode_ordinary(text[start : start + _SLICE])) for start in range(0, len(text), _SLICE))


def bound(
    body: Mapping[str, Any],
    images: Collection[str],
    most: int,
    fields: Fields,
    count_all: Callable[[Sequence[str]], int | None] | None = None,
) -> int | None:
    """Upper bound of the tokens of a request (its JSON) at a model that `fits`, without its images and the input
    outside the body. None as for `count`. `images` are strings of the body that are images (`Ask.image_data`), `fields`
    are the fields of its API. `count_all` counts texts, each by itself.

    A prompt is made of the strings of a request. So all of them are counted, keys as well, each by itself as OpenAI
    does. An allowance for each entry, object and list covers the tokens around messages and calls, and the notation of
    tools and schemas. It rests on OpenAI's publications about both (see above), not on a promise. The JSON text itself
    would be no bound: its escape can be fewer tokens than a control character.
    """
    texts: list[str] = []
    skipped = {id(image) for image in images}
    total, left = _REQUEST, most
    stack: list[tuple[Any, bool]] = [(body, False)]
    while stack:
        node, told = stack.pop()  # `told`: the text is in comments or quotes, whose lines and quotes can cost more
        if isinstance(node, str):
            size = _size(node)
            if size <= left:
                left -= size
                texts.append(node)
            else:
                total += size
            if told:
                total += _LINE * node.count("\n") + node.count('"') + node.count("\\")
        elif isinstance(node, dict):
            total += _NODE + _ENTRY * len(node)
            for key, value in node.items():
                stack.append((key, False))
                if id(value) in skipped:
                    continue
                if key in fields.opaque and isinstance(value, str):
                    total += _size(value)
                else:
                    stack.append((value, told or (node is body and key not in fields.spoken)))
        elif isinstance(node, list):
            total += _NODE + _ENTRY * len(node)
            stack.extend((item, told) for item in node)
        elif node is not None and node is not True and node is not False:
            total += len(repr(node))
    counted = (count_all or count)(texts)
    return None if counted is None else total + counted


def count(texts: Sequence[str]) -> int | None:
    """The tokens of texts, each by itself: exact if every 32,000 characters have a break, otherwise an upper bound.

    A count never exceeds the bytes. None where counting is not possible: the ranks are not read yet (this call begins
    reading), or cannot be read. Text like `<|endoftext|>` is text. A megabyte takes some 50 ms, and nearly a second at
    worst; the interpreter is free for most of it.
    """
    encoding = _ranks.encoding
    if encoding is None:
        load()
        return None
    return sum(_count(encoding, text) for text in texts)


def _count(encoding: tiktoken.Encoding, text: str) -> int:
    tokens = start = 0
    while len(text) - start > _SLICE:
        end = start + _SLICE
        last = _last_break(text, start, end)
        if last > start:
            tokens += len(encoding.encode_ordinary(text[start:last]))
        else:
            further = _BREAK.search(text, end)
            last = further.start() if further else len(text)
            tokens += _size(text[start:last])
        start = last
    return tokens + len(encoding.encode_ordinary(text[start:]))


def _last_break(text: str, start: int, end: int) -> int:
    """The last place before `end` where a word surely ends; `start` if there is none."""
    for near in (max(start + 1, end - 1000), start + 1):
        last = start
        for found in _BREAK.finditer(text, near, end):
            last = found.start()
        if last > start:
            return last
    return start


def _size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode(errors="surrogatepass"))


def _answered(question: bytes) -> bytes:
    """Counts of texts for `counter`: an upper bound of each, or an estimate of all."""
    load().join()
    bounds, texts = msgspec.msgpack.decode(question)
    decoded = [text.decode() for text in texts]
    found = count(decoded) if bounds else about("".join(decoded))
    return msgspec.msgpack.encode(found)


if __name__ == "__main__":
    serve(_answered, _IDLE)

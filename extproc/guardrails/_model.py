"""Linear models over hashed words, pairs of words and pieces of words, scored without numpy.

A text is a sequence of tokens. Each token adds the weights of its features to a sum, and a window of n tokens scores
`bias + sum / sqrt(n)`. The sums of all beginnings of a text are kept, so a window costs one subtraction, whatever its
length. The weights are int8 numbers in an `.npz` file beside its `.json`, which has the sha256, sources and licences.

Features of a token: the token; the pairs with the token before it, and with the one before that; its pieces of three
and four bytes, `^` and `$` at its ends. A feature's place in its table is a CRC-32, cut to the size of the table. A
token that repeats the token before it has no features.
"""

from __future__ import annotations

import ast
import hashlib
import io
import json
import math
import re
import zipfile
import zlib
from array import array
from collections.abc import Sequence
from functools import cache
from itertools import groupby
from pathlib import Path

FOLDER = Path(__file__).with_name("_models")
_LONGEST = 24  # most characters of a token that count
_MOST_KEPT = 1 << 16  # most tokens whose scores are kept
_token = re.compile(r"[^\W_]+|[^\w\s]")

tokens = _token.findall
"""The tokens of a text, as they are written."""


class ModelError(Exception):
    """The file of weights does not have the digest in its description."""


def places(text: str) -> list[int]:
    """The beginning of each token, and the length of the text as the last item."""
    return [*(match.start() for match in _token.finditer(text)), len(text)]


def normal(word: str) -> str:
    """The form of a token that features use."""
    return word[:_LONGEST].lower()


def pieces(data: bytes) -> list[bytes]:
    """The pieces of a token, which is given in UTF-8: three and four bytes of it, with a mark at each end."""
    if len(data) < 3 or data[0] < 58:
        return []
    whole = b"^%s$" % data
    size = len(whole)
    return [*[whole[at : at + 3] for at in range(size - 2)], *[whole[at : at + 4] for at in range(size - 3)]]


class LinearModel:
    """Weights, and the scores of windows. Safe to use on several threads: its memory holds only copies."""

    def __init__(self, name: str) -> None:
        about = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
        data = (FOLDER / f"{name}.npz").read_bytes()
        if hashlib.sha256(data).hexdigest() != about["sha256"]:
            raise ModelError(f"the weights {name}.npz are not those that {name}.json describes")
        with zipfile.ZipFile(io.BytesIO(data)) as file:
            words = _array(file.read("words.npy"))
            parts = _array(file.read("pieces.npy"))
        scale, part_scale = about["scales"]
        self._words = [one * scale for one in words]
        self._pieces = [one * part_scale for one in parts]
        self._mask, self._piece_mask = len(words) - 1, len(parts) - 1
        self.bias: float = about["bias"]
        self.thresholds: dict[str, float] = about["thresholds"]
        self._kept: dict[str, tuple[bytes, int, float]] = {}

    def _token(self, word: str) -> tuple[bytes, int, float]:
        """(bytes, hash, own score) of a token."""
        data = normal(word).encode("utf-8", "surrogatepass")
        code = zlib.crc32(data)
        score = self._words[code & self._mask]
        if found := pieces(data):
            table, mask, crc = self._pieces, self._piece_mask, zlib.crc32
            score += sum([table[crc(piece) & mask] for piece in found]) / math.sqrt(len(found))
        if len(self._kept) >= _MOST_KEPT:
            self._kept.clear()
        self._kept[word] = found_token = data, code, score
        return found_token

    def sums(self, words: Sequence[str]) -> list[float]:
        """The sum of the scores of the first n tokens, for n from 0 to all."""
        kept, table, mask, crc = self._kept, self._words, self._mask, zlib.crc32
        total = 0.0
        out = [total]
        before = last = 0
        repeated = ""
        for word in words:
            if word == repeated:  # a row of exclamation marks counts as one
                out.append(total)
                continue
            repeated = word
            data, code, score = kept.get(word) or self._token(word)
            total += score + table[crc(data, last) & mask] + table[crc(data, before ^ 0x5BD1E995) & mask]
            before, last = last, code
            out.append(total)
        return out

    def score(self, text: str) -> float:
        """The score of a whole text; above 0 the label is more likely than not."""
        sums = self.sums([word for word, _ in groupby(tokens(text))])
        return self.bias + sums[-1] / math.sqrt(max(1, len(sums) - 1))

    def windows(self, sums: Sequence[float], size: int) -> tuple[list[float], list[int]]:
        """The scores of windows of `size` tokens, and the beginning of each. Windows overlap by three quarters. `sums`
        belong to a text of more than `size` tokens.
        """
        last = len(sums) - 1 - size
        starts = list(range(0, last, max(1, size // 4)))
        starts.append(last)
        root, bias = math.sqrt(size), self.bias
        return [bias + (sums[start + size] - sums[start]) / root for start in starts], starts


def _array(data: bytes) -> array[int]:
    """The numbers of an .npy file of int8, see numpy.lib.format."""
    if data[:6] != b"\x93NUMPY":
        raise ModelError("no array of numpy")
    size = int.from_bytes(data[8:10], "little")
    head = ast.literal_eval(data[10 : 10 + size].decode("latin-1"))
    if head["descr"] != "|i1" or head["fortran_order"]:
        raise ModelError("no array of int8")
    return array("b", data[10 + size :])


@cache
def weights(name: str) -> LinearModel:
    """The model of a name, read once."""
    return LinearModel(name)

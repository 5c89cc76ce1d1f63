"""Learns the linear models of guardrails from data outside the repository.

    python -m bench.guardrails.learn injection DATA.jsonl      extproc/guardrails/_models/injection.npz and .json
    python -m bench.guardrails.learn toxicity DATA.jsonl

A line of DATA has `text`, `label` (1: to be found), `source` and `licence`. Three lines in ten, chosen by CRC-32,
are held out: `python -m bench.guardrails.quality` measures on them. Needs numpy and scikit-learn, unlike the
gateway. The weights do not depend on the machine: same data, same versions, same file.
"""

from __future__ import annotations

import argparse
import ast
import codecs
import hashlib
import io
import json
import math
import random
import sysconfig
import zipfile
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
from scipy.sparse import csr_matrix
from sklearn.linear_model import LogisticRegression

from bench.guardrails import identities, phrases
from extproc.guardrails._model import _FOLDER, normal, pieces, places, tokens
from extproc.guardrails.bias import neutral

WORDS, PIECES = 1 << 17, 1 << 14
OWN = {"name": "bench/guardrails/phrases.py", "licence": "Apache-2.0"}
PYTHON = {"name": "docstrings of CPython's standard library", "licence": "PSF-2.0"}
_SALT = 0x5BD1E995


def held_out(text: str) -> bool:
    return zlib.crc32(text.encode()) % 10 >= 7


def features(words: list[str]) -> dict[int, float]:
    """Places of features and their values; pieces of words stand behind WORDS."""
    found: Counter[int] = Counter()
    before = last = 0
    repeated = ""
    for word in words:
        if word == repeated:
            continue
        repeated = word
        data = word.encode()
        code = zlib.crc32(data)
        for place in (code, zlib.crc32(data, last), zlib.crc32(data, before ^ _SALT)):
            found[place & (WORDS - 1)] += 1
        parts = pieces(data)
        for part in parts:
            found[WORDS + (zlib.crc32(part) & (PIECES - 1))] += 1 / math.sqrt(len(parts))
        before, last = last, code
    root = math.sqrt(max(1, len(words)))
    return {place: value / root for place, value in found.items()}


def matrix(texts: list[list[str]]) -> csr_matrix:
    starts, places, values = [0], [], []
    for words in texts:
        row = features(words)
        places.extend(row)
        values.extend(row.values())
        starts.append(len(places))
    return csr_matrix((values, places, starts), shape=(len(texts), WORDS + PIECES))


class Rows:
    """Texts as tokens, with labels and weights."""

    def __init__(self) -> None:
        self.texts: list[list[str]] = []
        self.labels: list[int] = []
        self.weights: list[float] = []

    def add(self, text: str, label: int, weight: float = 1.0) -> None:
        words = [normal(word) for word in tokens(text)]
        if words:
            self.texts.append(words)
            self.labels.append(label)
            self.weights.append(weight)

    def add_windows(self, text: str, label: int, rng: random.Random, weight: float, most: int = 6) -> None:
        words, starts = tokens(text), places(text)
        if len(words) < 40:
            return
        for _ in range(min(most, len(words) // 30)):
            size = rng.choice((12, 24, 48, 96))
            start = rng.randrange(max(1, len(words) - size))
            end = min(start + size, len(words) - 1)
            self.add(text[starts[start] : starts[end]], label, weight)


def docstrings(part: int) -> list[str]:
    """Prose for harmless documents: one in two modules of the standard library is for `part` 0, the others for 1."""
    found = []
    folder = Path(sysconfig.get_paths()["stdlib"])
    for path in sorted(folder.glob("*.py")):
        if zlib.crc32(path.name.encode()) % 2 != part:
            continue
        try:
            tree = ast.parse(path.read_text(encoding="utf-8"))
        except (SyntaxError, UnicodeDecodeError):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                text = ast.get_docstring(node)
                if text and len(text) > 60:
                    found.append(text)
    return found


def read(path: str, *, held: bool) -> list[dict]:
    lines = [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]
    return [line for line in lines if held_out(line["text"]) is held]


_MEANT = (
    "response",
    "reply",
    "answer",
    "message",
    "code",
    "implementation",
    "solution",
    "prompt",
    "instruction",
    "ignore",
    "```",
)


def injection_rows(path: str, *, all_templates: bool = True) -> Rows:
    rng, rows = random.Random(1), Rows()
    held = None if all_templates else False
    data = read(path, held=False)
    carriers = [line["text"] for line in data if line["label"] == 0 and len(line["text"]) > 200] + docstrings(0)
    attacks = []
    for line in data:
        text, label = line["text"], line["label"]
        if (
            label
            and len(text) < 200
            and line["kind"] in ("indirect", "mixed")
            and not any(word in text.lower() for word in _MEANT)
        ):
            continue  # a harmless question on its own; only its place in a document makes it an attack
        rows.add(text, label, 3.0 if label else 1.0)
        rows.add_windows(text, label, rng, 0.7)
        if label:
            attacks.append(text)
    for text in docstrings(0):
        rows.add(text[:600], 0)
        rows.add_windows(text, 0, rng, 0.7)
    made = phrases.attacks(rng, 7000, held_out=held)
    for text in made:
        rows.add(text, 1, 0.5)
    for text in phrases.harmless(rng, 14000, held_out=held):
        rows.add(text, 0, 0.7)
    for _ in range(5000):  # an attack between two pieces of a document
        around = rng.choice(carriers)
        start = rng.randrange(max(1, len(around) - 150))
        cut = start + rng.randrange(20, 120)
        attack = rng.choice(made if rng.random() < 0.6 else attacks)[:600]
        rows.add(f"{around[start:cut]} {attack} {around[cut : cut + rng.randrange(20, 120)]}", 1, 0.3)
    for _ in range(5000):  # and harmless sentences there
        around = rng.choice(carriers)
        start = rng.randrange(max(1, len(around) - 150))
        cut = start + rng.randrange(20, 120)
        rows.add(f"{around[start:cut]} {phrases.harmless(rng, 1, held_out=held)[0]} {around[cut : cut + 80]}", 0, 0.5)
    ordinary = [line["text"] for line in data if line["label"] == 0] + phrases.harmless(rng, 2000, held_out=held)
    for text in rng.sample(ordinary, min(4000, len(ordinary))):
        rows.add(disguised(text[:400], rng), 0, 0.7)
    return rows


def disguised(text: str, rng: random.Random) -> str:
    """Harmless text in a form that says nothing about its meaning."""
    kind = rng.randrange(7)
    if kind == 0:
        return rng.choice((" ", "\u200b", ".", "-")).join(text)
    if kind == 1:
        return text[::-1]
    if kind == 2:
        return codecs.encode(text, "rot13")
    if kind == 3:
        return " ".join(word[::-1] for word in text.split())
    if kind == 4:
        form = rng.choice(("\\u{:04x}", "&#{};", "%{:02X}"))
        return "".join(form.format(ord(letter)) for letter in text[:100])
    return text.translate(str.maketrans(*rng.choice((("aeio", "@3!0"), ("aeiost", "431057"), ("aeos", "4305")))))


def toxicity_rows(path: str, *, all_templates: bool = True) -> Rows:  # noqa: ARG001
    rng, rows = random.Random(2), Rows()
    for line in read(path, held=False):
        text, label = line["text"], line["label"]
        rows.add(neutral(text), label, 6.0)
    for text, label in identities.sentences(rng, 9000):
        rows.add(neutral(text), label, 0.35 if label else 1.0)
    for text in docstrings(0)[:1500]:
        rows.add(neutral(text[:400]), 0, 0.3)
    return rows


def fitted(rows: Rows, strength: float) -> tuple[np.ndarray, float]:
    model = LogisticRegression(C=strength, solver="liblinear", random_state=0, max_iter=400)
    model.fit(matrix(rows.texts), rows.labels, sample_weight=rows.weights)
    return model.coef_[0], float(model.intercept_[0])


def store(name: str, weights: np.ndarray, bias: float, about: dict) -> None:
    """Write the weights as int8, and their description. The zip has no dates: same weights, same file."""
    parts = {"words": weights[:WORDS], "pieces": weights[WORDS:]}
    scales = {}
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as out:
        for part, values in parts.items():
            scales[part] = float(np.quantile(np.abs(values), 0.9999) / 127) or 1.0
            data = io.BytesIO()
            np.save(data, np.clip(np.rint(values / scales[part]), -127, 127).astype(np.int8))
            out.writestr(zipfile.ZipInfo(f"{part}.npy", (1980, 1, 1, 0, 0, 0)), data.getvalue(), zipfile.ZIP_DEFLATED)
    _FOLDER.mkdir(exist_ok=True)
    (_FOLDER / f"{name}.npz").write_bytes(file.getvalue())
    whole = {
        "sha256": hashlib.sha256(file.getvalue()).hexdigest(),
        "bias": bias,
        "scales": list(scales.values()),
        **about,
    }
    (_FOLDER / f"{name}.json").write_text(json.dumps(whole, indent=2) + "\n", encoding="utf-8")


def sources(path: str, *, harmless: bool = False) -> list[dict]:
    lines = [*read(path, held=False), *read(path, held=True)]
    lines = [line for line in lines if not (harmless and line.get("label"))]
    named = sorted({(line["source"], line["licence"]) for line in lines})
    return [{"name": name, "licence": licence} for name, licence in named]


RECIPES = {
    "injection": (injection_rows, 4.0, {"whole": 0.4, "12": 2.2, "24": 2.6, "48": 3.0, "96": 3.6}, [OWN, PYTHON]),
    "toxicity": (toxicity_rows, 2.0, {"whole": -0.9}, [{**OWN, "name": "bench/guardrails/identities.py"}, PYTHON]),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=RECIPES)
    parser.add_argument("data")
    parser.add_argument(
        "--harmless",
        action="append",
        default=[],
        help="JSONL with more harmless texts, those without `label` or with 0",
    )
    parser.add_argument("--hold-out-templates", action="store_true", help="learn without one in four of the templates")
    parser.add_argument("--documents", action="append", default=[], help="folders with harmless Markdown pages")
    args = parser.parse_args()
    recipe, strength, thresholds, own = RECIPES[args.model]
    rows = recipe(args.data, all_templates=not args.hold_out_templates)
    for path in args.harmless:
        for line in read(path, held=False):
            if not line.get("label"):
                rows.add(neutral(line["text"]) if args.model == "toxicity" else line["text"], 0, 0.7)
    rng = random.Random(3)
    for folder in args.documents:
        for path in sorted(Path(folder).rglob("*.md")):
            if not held_out(path.name):
                rows.add_windows(path.read_text(encoding="utf-8"), 0, rng, 0.7, 40)
    weights, bias = fitted(rows, strength)
    named = sources(args.data)
    for path in args.harmless:
        named += [each for each in sources(path, harmless=True) if each not in named]
    store(
        args.model,
        weights,
        bias,
        {
            "thresholds": thresholds,
            "rows": len(rows.texts),
            "sources": named + own,
        },
    )


if __name__ == "__main__":
    main()

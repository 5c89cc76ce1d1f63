"""Learns the linear models of guardrails from data outside the repository.

    python -m bench.guardrails.learn injection ATTACKS.jsonl BENIGN.jsonl TEMPLATES.jsonl JUDGES.jsonl
    python -m bench.guardrails.learn toxicity COMMENTS.jsonl GROUPS.jsonl BENIGN.jsonl

write `extproc/guardrails/_models`. A line has `text`, `label` (1: to be found), `kind`, `source` and `licence`. Some
parts of the data (`parts.py`) are left out: `python -m bench.guardrails.quality` measures on them. Needs numpy and
scikit-learn, unlike the gateway. The weights do not depend on the machine: same data, same versions, same file.
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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix, vstack
from sklearn.linear_model import LogisticRegression

from bench.guardrails import identities, phrases
from bench.guardrails.parts import HELD_OUT, LEARNED, LIMITS, part_of
from extproc.guardrails import _model
from extproc.guardrails._model import LinearModel, normal, pieces, tokens
from extproc.guardrails._normal import normalised
from extproc.guardrails.bias import neutral

WORDS, PIECES = 1 << 17, 1 << 14
PYTHON = {"name": "docstrings of CPython's standard library", "licence": "PSF-2.0"}
SIZES = (12, 24, 48, 96)  # words of the windows that the detector looks at
_HARD, _NEARLY = 8, -1.5  # windows of each length of a text that are learned again, and their least score
_SALT = 0x5BD1E995


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
            self.append(words, label, weight)

    def add_text(self, text: str, label: int, rng: random.Random, weight: float, most: int = 4) -> None:
        """A short text as a whole, and `most` windows of each length that the detector looks at."""
        words = [normal(word) for word in tokens(text)]
        if len(words) <= SIZES[-1]:
            self.add(text, label, weight)
        for size in SIZES:
            if len(words) <= size:
                break
            for _ in range(min(most, 1 + len(words) // size // 2)):
                start = rng.randrange(len(words) - size)
                self.append(words[start : start + size], label, 0.7 * weight)

    def append(self, words: list[str], label: int, weight: float) -> None:
        self.texts.append(words)
        self.labels.append(label)
        self.weights.append(weight)


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


def read(paths: Sequence[str], part: str) -> list[dict[str, Any]]:
    """The lines of that part."""
    lines = [json.loads(line) for path in paths for line in Path(path).read_text(encoding="utf-8").splitlines()]
    return [line for line in lines if part_of(line) == part]


def forms(text: str) -> Sequence[str]:
    """A text as it was written, and as the detector reads it once more."""
    return (text,) if (plain := normalised(text)) is text else (text, plain)


# An order about the answer names it. Other short orders are harmless questions, wherever they do not belong.
_ABOUT_ANSWER = (
    *("response", "reply", "answer", "message", "code", "implementation", "solution", "prompt", "instruction"),
    *("ignore", "```"),
)


def _harmless_alone(line: Mapping[str, Any]) -> bool:
    """True for an attack by its place alone: a plain question in a document, a plain role that a chat is given."""
    text = line["text"].lower()
    if line["kind"] == "direct" and text.startswith(("i want you to act as", "ich möchte, dass sie als")):
        return True
    return line["kind"] in ("indirect", "mixed") and len(text) < 200 and not any(word in text for word in _ABOUT_ANSWER)


def injection_rows(data: Sequence[Mapping[str, Any]], *, all_templates: bool) -> Rows:
    rng, rows = random.Random(1), Rows()
    held = None if all_templates else False
    attacks = [line["text"] for line in data if line["label"] and not _harmless_alone(line)]
    harmless = [line for line in data if not line["label"]]
    for text in attacks:
        rows.add_text(text, 1, rng, 3.0 if len(tokens(text)) <= SIZES[-1] else 1.0, 3)
    for line in harmless:
        for text in forms(line["text"]):
            rows.add_text(text, 0, rng, _weight(line))
    for text in docstrings(0):
        rows.add_text(text, 0, rng, 1.0)
    made, calm = phrases.attacks(rng, 7000, held_out=held), phrases.harmless(rng, 14000, held_out=held)
    for text in made:
        rows.add(text, 1, 0.5)
    for text in calm:
        rows.add(text, 0, 0.7)
    told = [line["text"] for line in harmless if line["kind"] not in ("roleplay", "agent_prompt", "instruction")]
    carriers = [text for text in told if len(text) > 200] + docstrings(0)
    for label, weight in ((1, 0.3), (0, 0.5)):  # an attack, or a harmless sentence, between two pieces of a document
        for _ in range(5000):
            around = rng.choice(carriers)
            start = rng.randrange(max(1, len(around) - 150))
            cut = start + rng.randrange(20, 120)
            inside = rng.choice(calm) if not label else rng.choice(made if rng.random() < 0.6 else attacks)[:600]
            rows.add(f"{around[start:cut]} {inside} {around[cut : cut + rng.randrange(20, 120)]}", label, weight)
    english = [line["text"] for line in harmless if line.get("language", "en") == "en"] + calm[:2000]
    for text in rng.sample(english, min(4000, len(english))):
        rows.add(disguised(text[:400], rng), 0, 0.7)
    return rows


def hard_windows(model: LinearModel, data: Sequence[Mapping[str, Any]]) -> Rows:
    """Windows of harmless texts that the model takes for attacks, or nearly so."""
    rows = Rows()
    for line in data:
        for text in forms(line["text"]) if not line["label"] else ():
            words = [normal(word) for word in tokens(text)]
            sums = model.sums(words)
            for size in SIZES:
                if len(words) <= size:
                    break
                scores, starts = model.windows(sums, size)
                for score, start in sorted(zip(scores, starts, strict=True), reverse=True)[:_HARD]:
                    if score > _NEARLY:
                        rows.append(words[start : start + size], 0, _weight(line))
    return rows


def _weight(line: Mapping[str, Any]) -> float:
    """Texts that give orders to a model count more: nothing is as near to an attack."""
    return 2.5 if line["kind"] in ("agent_prompt", "instruction", "roleplay") else 1.5


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


def toxicity_rows(data: Sequence[Mapping[str, Any]], *, all_templates: bool) -> Rows:  # noqa: ARG001
    rng, rows = random.Random(2), Rows()
    for line in data:
        if line.get("language", "en") != "en":
            continue
        kind = line.get("kind")
        rows.add(neutral(line["text"][:600]), line["label"], 6.0 if kind is None else 1.0)
    for text, label in identities.sentences(rng, 9000):
        rows.add(neutral(text), label, 0.35 if label else 1.0)
    for text in docstrings(0)[:1500]:
        rows.add(neutral(text[:400]), 0, 0.3)
    return rows


def fitted(table: csr_matrix, rows: Rows, strength: float) -> tuple[np.ndarray, float]:
    model = LogisticRegression(C=strength, solver="liblinear", random_state=0, max_iter=400)
    model.fit(table, rows.labels, sample_weight=rows.weights)
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
    _model.FOLDER.mkdir(exist_ok=True)
    (_model.FOLDER / f"{name}.npz").write_bytes(file.getvalue())
    whole = {
        "sha256": hashlib.sha256(file.getvalue()).hexdigest(),
        "bias": bias,
        "scales": list(scales.values()),
        **about,
    }
    (_model.FOLDER / f"{name}.json").write_text(json.dumps(whole, indent=2) + "\n", encoding="utf-8")


def sources(paths: Sequence[str]) -> list[dict[str, str]]:
    """The repositories and data sets of all lines, held out or not."""
    lines = [line for part in (LEARNED, LIMITS, HELD_OUT) for line in read(paths, part)]
    named = {
        (line["source"].split(" ")[0] if line.get("language") else line["source"], line["licence"]) for line in lines
    }
    return [{"name": name, "licence": licence} for name, licence in sorted(named)]


def learn(name: str, paths: Sequence[str], *, all_templates: bool) -> None:
    recipe = RECIPES[name]
    data = read(paths, LEARNED)
    rows = recipe.rows(data, all_templates=all_templates)
    table = matrix(rows.texts)
    about: dict[str, Any] = {"thresholds": recipe.limits}
    for left in range(recipe.rounds, -1, -1):
        weights, bias = fitted(table, rows, recipe.strength)
        if not left:
            about |= {"rows": len(rows.texts), "sources": sources(paths) + recipe.own}
        store(name, weights, bias, about)
        if left:
            hard = hard_windows(LinearModel(name), data)
            table = vstack([table, matrix(hard.texts)]).tocsr()
            for words, weight in zip(hard.texts, hard.weights, strict=True):
                rows.append(words, 0, weight)


@dataclass(frozen=True)
class Recipe:
    rows: Callable[..., Rows]
    strength: float  # of the weights
    limits: Mapping[str, float]  # scores above which a text, or a window of so many words, is found
    rounds: int  # in which hard windows are learned again
    own: list[dict[str, str]]


RECIPES = {
    "injection": Recipe(
        injection_rows,
        4.0,
        {"whole": 0.0, "12": 3.0, "24": 2.0, "48": 1.5, "96": 1.0},
        1,
        [{"name": "bench/guardrails/phrases.py", "licence": "Apache-2.0"}, PYTHON],
    ),
    "toxicity": Recipe(
        toxicity_rows,
        2.0,
        {"whole": -1.9},
        0,
        [{"name": "bench/guardrails/identities.py", "licence": "Apache-2.0"}, PYTHON],
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=RECIPES)
    parser.add_argument("data", nargs="+")
    parser.add_argument("--to", type=Path, help="folder of the weights, in place of the gateway's own")
    parser.add_argument("--hold-out-templates", action="store_true", help="learn without one in four of the templates")
    args = parser.parse_args()
    if args.to is not None:
        _model.FOLDER = args.to
    learn(args.model, args.data, all_templates=not args.hold_out_templates)


if __name__ == "__main__":
    main()

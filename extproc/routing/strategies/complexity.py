"""A cheap model for simple steps, a strong one for hard ones.

A heuristic over the request decides. It asks no model and learns nothing, and the same request always gets the same
score. `python -m bench.complexity` shows its hits and misses on labelled requests. Its words are English. In other
languages length and structure still count, and the wording does not.

The work is bounded for any size of body: it reads the ends of lists, 2 KiB from the beginning of a text and 1 KiB from
its end. It uses no patterns, only substrings and words.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from extproc.routing.history import History
from extproc.routing.strategies import StickySettings
from extproc.words.chain import Candidate
from extproc.words.exchange import Exchange
from extproc.words.messages import Effort

BASE = 0.36
"""The score of a request without any signal."""

WEIGHTS: Mapping[str, float] = {
    # Each signal is 0 to 1 (`effort` -1 to 1, `task` -1 to 1); the score is BASE and the weighted sum, cut to 0..1. --
    # length
    "length": 0.22,  # the last user message: 0 at 80 bytes, 1 at 2 KiB, by the logarithm
    "context": 0.10,  # the whole body without images: 0 at 16 KiB, 1 at 256 KiB, by the logarithm
    "turns": 0.05,  # messages: 0 at 3, 1 at 20
    # -- tools, schemas and limits of the request
    "tools": 0.06,  # tools offered: 1 at 10
    "result": -0.20,  # the last message is a tool's result: most such steps are simple
    "failure": 0.35,  # the last message is a tool's result that reads like a failure
    "schema": -0.25,  # JSON of a given shape, or one given tool: extraction
    "limit": -0.20,  # the output is limited: 1 at 16 tokens, 0 at 256
    "effort": 0.40,  # reasoning effort: none -1, minimal -1, low -0.5, high 1
    "images": 0.04,
    "system": -0.25,  # a short system prompt gives a simple task: title, classify, "only"
    # -- the instruction in the last user message
    "task": 0.22,  # first telling verb: translate -1 (less with conditions), prove 1; half of that further back
    "simple": -0.10,  # other words of simple tasks: 1 at 2 words
    "hard": 0.32,  # words of reasoning, planning, debugging, design: 1 at 4 different ones
    "brief": -0.18,  # a word, a sentence, yes or no is asked for
    "fact": -0.10,  # a short question with a question word and without conditions
    "questions": 0.08,  # questions beyond the first: 1 at 3
    "conditions": 0.20,  # must, at most, without, never, if: 1 at 4 different words
    # -- material in the last user message
    "maths": 0.15,  # symbols and words of mathematics: 1 at 3
    "code": 0.10,  # fences, diffs
    "trace": 0.20,  # stack traces, compiler errors
    "steps": 0.08,  # items of a list: 1 at 5
}

_DAMP = 0.3
"""Weight of material when the task is a simple one: a long text to translate is no harder than a short one."""

_HEAD, _TAIL = 2048, 1024  # characters of a text that are read
_ASKED = 600  # characters of the beginning that usually hold the instruction
_EARLY = 8  # words at the beginning; a verb after them counts less
_NEAR = 4  # words at the beginning: verbs of `_FIRST` are read in them alone
_CONDITIONED = 1024  # characters of the beginning in which conditions are counted
_LINES = 100  # lines in which items of a list are counted
_LAST = 240  # most characters of a last paragraph that can hold the instruction
_SYSTEM = 600  # most characters of a system prompt that gives a task; longer ones describe an agent


def _set(words: str) -> frozenset[bytes]:
    return frozenset(words.encode().split())


_SIMPLE = _set("""
    translate translation rephrase reword paraphrase summarise summarize summary shorten shorter rewrite proofread
    spelling spell typo typos grammar punctuation capitalise capitalize uppercase lowercase reformat convert
    alphabetical bulleted bullets classify categorise categorize sentiment extract headline rename synonym synonyms
    antonym plural define docstring autocomplete moderate polite
""")
_FIRST = _set("""
    list count complete sort format label tag tags title titles subject commit branch route decide detect keywords
    turn name greet
""")
"""Verbs of simple tasks only near the beginning of a text: elsewhere these words are nouns."""
_HARD = _set("""
    prove proof disprove derive derivation design architect architecture plan planning strategy debug diagnose
    investigate refactor optimise optimize analyse analyze analysis evaluate assess compare comparison recommend judge
    justify critique argue argument reasoning implement review estimate why explain solve simulate migrate migration
""")
_TELLING = _SIMPLE | _FIRST | _HARD
_TOPICS = _set("""
    tradeoff tradeoffs offs algorithm algorithms complexity concurrent concurrency concurrently deadlock race
    thread threads distributed consistency consistent replication failover partition crash crashes bug bugs protocol
    invariant correctness guarantee guarantees counterexample scalable scale latency throughput bottleneck
    performance leak security secure attack attacks attacker vulnerability threat threats downtime risk risks
    assumption assumptions contradict contradiction hypothesis evidence experiment explanation explanations optimal
    maximise maximize minimise minimize constraint constraints approach approaches pros cons fails failing hangs
    difficult async asynchronous parser compiler conclude show schedule separate root cause causes model
""")
_CONDITIONS = _set("""
    must cannot never always least most without unless except only every each both exactly neither nor requirement
    requirements requires should whatever keep if no need needs
""")
_MATHS = _set("""
    theorem lemma corollary prime primes integer integers continuous compact converge converges convergent derivative
    integral matrix eigenvalue eigenvalues vector polynomial probability expected variance modulo bijection induction
    inequality equation equations irrational finite infinite infinitely metric topology angle angles triangle graph
    asymptotic sequence sum maximises maximizes
""")
_QUESTION = _set("what who when where which is whats")

_FOLD = bytes(byte | 32 if 65 <= byte <= 90 else byte if 97 <= byte <= 122 else 32 for byte in range(256))

# Literal strings to search for. The search for a single character is cheapest; it goes first and, where possible,
# decides about the longer strings.
_MATERIAL = (": ", ":\n", "\n\n", "```", "\n<", '"', "“", "«")
_BRIEF = (
    "yes or no", "true or false", "one word", "single word", "a few words", "one sentence", "a sentence", "one line",
    "one-line", "nothing else", "only the", "just the", "just yes", "answer with", "answer only", "reply with",
    "reply only", "respond with", "respond only", "output only", "no explanation",
)  # fmt: skip
_BRIEF_WORDS = _set("yes true word words sentence line else only just answer reply respond explanation")
"""Words of which each phrase in `_BRIEF` has at least one."""
_TRACES = ("Traceback (", "rror: ", "xception: ", "panic: ")  # `except KeyError:` is no trace, `KeyError: 1` is
_FAILURES = (*_TRACES, "FAILED", "FAILURE", "exit code 1", "exit code: 1", "exit status 1", "command not found")
_STEPS = frozenset(("- ", "* ", "• ", *(f"{number}{end}" for number in range(1, 10) for end in ".)")))
_TEX = ("\\frac", "\\sum", "\\int", "\\forall", "\\exists", "\\begin", "\\mathbb", "^2", "^n", "^{")
_SYMBOLS = "∀∃∑∏∫√≤≥≠∈∉⊂⊆∞ℝℕℤℚℂ∂∇≡⇒⇔"  # noqa: RUF001

_EFFORTS: Mapping[Effort, float] = {"none": -1.0, "minimal": -1.0, "low": -0.5, "high": 1.0, "xhigh": 1.0}


def complexity(exchange: Exchange) -> float:
    """Estimated difficulty of a request, from 0 (easy) to 1 (hard). Takes any body and never raises."""
    score = BASE
    for name, value in signals(exchange).items():
        score += WEIGHTS[name] * value
    return min(max(score, 0.0), 1.0)


def signals(exchange: Exchange) -> dict[str, float]:
    """The parts of the score, by their names in WEIGHTS. A signal that is missing counts as 0."""
    ask, said = exchange.request.ask, exchange.request.dialect.conversation(exchange.request.json)
    text, size = _sample(said.asked)
    system = _simple_system(said.system)
    found = _asked(text, size, system)
    found["context"] = _log(len(exchange.request.body) - ask.image_bytes - ask.file_bytes, 16 << 10, 256 << 10)
    found["turns"] = _part(said.turns - 3, 17)
    found["tools"] = _part(said.tools, 10)
    found["schema"] = float(said.shaped or "json_schema" in ask.needs)
    found["effort"] = 0.0 if said.effort is None else _EFFORTS.get(said.effort, 0.0)
    found["images"] = float(ask.images > 0)
    found["system"] = float(system)
    if ask.max_output_tokens is not None:
        found["limit"] = 1 - _log(ask.max_output_tokens, 16, 256)
    if said.result is not None:
        found["result"] = 1.0
        answer = _sample(said.result)[0][-_TAIL:]
        found["failure"] = float(_has(answer, _FAILURES) or _failed(answer))
    return found


def _asked(text: str, size: int, system: bool) -> dict[str, float]:
    """The signals of the last user message. `system`: the system prompt gives a simple task."""
    cut = _ASKED
    for mark in _MATERIAL:
        at = text.find(mark, 1, cut)
        cut = at if at > 0 else cut
    instruction = text[:cut]
    words = _words(instruction)
    kind, place = _task(words)
    end = text[-_LAST:] if len(text) > len(instruction) else ""
    if end and (kind == 0 or place >= _EARLY):
        after = _words(end.rpartition("\n\n")[2])
        other, where = _task(after)
        if other and where < _EARLY:
            words, kind, place = words + after, other, where
    weak = kind < 0 or system
    damp = _DAMP if weak else 1.0
    doubt = _DAMP if system else 1.0  # weight of the words in the user message
    different = set(words)
    hard = doubt * _part(len(_HARD & different) + len(_TOPICS & different) - (kind > 0), 4)
    more = () if weak else _words(text[len(instruction) : _CONDITIONED])
    conditions = doubt * _part(len((_CONDITIONS & different).union(_CONDITIONS.intersection(more))), 4)
    maths = len(_MATHS & different) + (0 if weak else _symbols(text))
    task = kind * (1.0 if place < _EARLY else 0.5)
    if task < 0:
        task *= max(1 - hard - conditions, 0.0)
    elif system:
        task = 0.0
    lines = text.split("\n", _LINES) if "\n" in text else ()
    code = ("`" in text and "```" in text) or ("@" in text and "\n@@ " in text)
    return {
        "length": damp * _log(size, 80, 2048),
        "task": task,
        "simple": _part(len(_SIMPLE & different) - (kind < 0), 2),
        "hard": hard,
        "brief": float(_brief(instruction, words) or _brief(end, _words(end))),
        "fact": float(size < 100 and bool(words) and words[0] in _QUESTION and b"if" not in different),
        "questions": damp * _part(text.count("?") + text.count("？") - 1, 2),  # noqa: RUF001
        "conditions": conditions,
        "maths": doubt * _part(maths, 3),
        "code": damp * code,
        "trace": damp * float(bool(lines) and ":" in text and _has(text, _TRACES)),
        "steps": 0.0 if code else damp * _part(sum(line[:2] in _STEPS for line in lines), 5),
    }


def _has(text: str, marks: Iterable[str]) -> bool:
    return any(map(text.__contains__, marks))


def _brief(text: str, words: Iterable[bytes]) -> bool:
    """True when a short answer is wanted. `words` are the words of the text, of which few texts have a relevant one."""
    return not _BRIEF_WORDS.isdisjoint(words) and _has(text.lower(), _BRIEF)


def _failed(text: str) -> bool:
    """True for text that ends like a test runner's failure: `2 failed`."""
    at = text.find(" failed")
    count = text[max(at - 8, 0) : max(at, 0)].split()[-1:]
    return bool(count) and count[0].isdigit() and count != ["0"]


def _symbols(text: str) -> int:
    """Number of different mathematical symbols."""
    found = sum(map(text.__contains__, _TEX)) if "\\" in text or "^" in text else 0
    return found if text.isascii() else found + sum(map(text.__contains__, _SYMBOLS))


def _task(words: Sequence[bytes]) -> tuple[int, int]:
    """The meaning of the first telling verb, simple (-1) or hard (1), and its place; (0, 0) without one."""
    if not _TELLING.isdisjoint(words):
        for place, word in enumerate(words):
            if word in _HARD:
                return 1, place
            if word in _TELLING and (place < _NEAR or word in _SIMPLE):
                return -1, place
    return 0, 0


def _simple_system(pieces: Sequence[str]) -> bool:
    """True when a short system prompt gives a simple task; then the user message is the task's material."""
    if not pieces or sum(map(len, pieces)) > _SYSTEM:
        return False
    text, _ = _sample(pieces)
    words = _words(text)
    kind, _ = _task(words)
    return kind < 0 or (kind == 0 and _brief(text, words))


def _sample(pieces: Sequence[str]) -> tuple[str, int]:
    """The beginning and the end of a text in pieces, and the estimated size of the whole in bytes of UTF-8."""
    total = sum(map(len, pieces))
    if total <= _HEAD + _TAIL:
        text = "\n".join(pieces)
    else:
        head = "\n".join(piece[:_HEAD] for piece in pieces)[:_HEAD]
        tail = "\n".join(piece[-_TAIL:] for piece in pieces)[-_TAIL:]
        text = f"{head}\n{tail}"
    if text and not text.isascii():
        total = total * len(text.encode("utf-8", "surrogatepass")) // len(text)
    return text, total


def _words(text: str) -> list[bytes]:
    """Words of a text, in lower-case ASCII letters; all other characters separate them."""
    return text.encode("ascii", "replace").translate(_FOLD).split()


def _part(count: int, full: int) -> float:
    return min(max(count / full, 0.0), 1.0)


def _log(value: int, nothing: int, full: int) -> float:
    """A number scaled by its logarithm: 0 up to `nothing`, 1 from `full` on."""
    if value <= nothing:
        return 0.0
    return min(math.log(value / nothing) / math.log(full / nothing), 1.0)


class Complexity:
    """The weakest candidate that may get the request, then the stronger candidates, then the weaker ones, strongest
    first.

    The settings list the candidates from the weakest to the strongest.
    """

    def __init__(self, name: str, sticky: StickySettings | None, history: History) -> None:  # noqa: ARG002
        self._scored: tuple[str, float] = "", 0.0  # id of the latest exchange, and its score
        self._score = 0.0

    def order(self, choices: Sequence[Candidate], exchange: Exchange) -> Sequence[Candidate]:
        score = self._score = complexity(exchange)
        self._scored = exchange.id, exchange.started
        last = len(choices) - 1
        at = next((index for index, choice in enumerate(choices) if choice.max_complexity >= score), last)
        return [*choices[at:], *reversed(choices[:at])]

    def why(self, choice: Candidate, exchange: Exchange) -> str:
        again = self._scored == (exchange.id, exchange.started)
        score = self._score if again else complexity(exchange)
        return f"complexity {score:.2f}, up to {choice.max_complexity:.2f}"


STRATEGY = Complexity

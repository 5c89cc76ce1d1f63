"""A cheap model for simple steps, a strong one for hard ones.

A heuristic over the request decides: no model is asked, nothing is learnt, the same request always gets the same
score. `python -m bench.complexity` shows on labelled requests what it gets right and wrong. Its words are English; in
other languages length and structure still count, and how hard the wording is does not.

The work is bounded whatever the size of the body: the ends of lists, 2 KiB from the beginning of a text and 1 KiB from
its end. Patterns have no nested or adjacent repetition, so their time grows with the text and no faster.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from extproc.exchange import Exchange
from extproc.strategies import Choice, StickySettings

if TYPE_CHECKING:
    from extproc.history import History

BASE = 0.30
"""The score of a request that says nothing of itself."""

WEIGHTS: Mapping[str, float] = {
    # Each signal is 0 to 1 (`effort` -1 to 1, `task` -1 to 1); the score is BASE and the weighted sum, cut to 0..1.
    # -- how much there is
    "length": 0.18,  # of the last user message: 0 at 80 bytes, 1 at 2 KiB, by the logarithm
    "context": 0.10,  # of the whole body without images: 0 at 16 KiB, 1 at 256 KiB, by the logarithm
    "turns": 0.05,  # messages: 0 at 3, 1 at 20
    # -- what the client offers and demands
    "tools": 0.06,  # tools offered: 1 at 10
    "result": -0.20,  # the last message is the result of a tool: most such steps only go on
    "failure": 0.35,  # ... and that result reads like a failure
    "schema": -0.25,  # JSON of a given shape, or one given tool: extraction
    "limit": -0.20,  # the output is limited: 1 at 16 tokens, 0 at 256
    "effort": 0.40,  # reasoning effort: none -1, minimal -1, low -0.5, high 1
    "images": 0.04,
    "system": -0.25,  # a short system prompt gives a simple task: title, classify, "only"
    # -- what the last user message asks for
    "task": 0.22,  # the verb it begins with: translate -1, prove 1; half of that further back
    "simple": -0.10,  # other words of simple tasks: 1 at 2
    "hard": 0.32,  # words of reasoning, planning, debugging, design: 1 at 4 different ones
    "brief": -0.18,  # it wants a word, a sentence, yes or no
    "fact": -0.10,  # a short question: what is, who, when, where
    "questions": 0.08,  # beyond the first: 1 at 3
    "limits": 0.20,  # must, at most, without, never: 1 at 5
    # -- what it brings along
    "maths": 0.15,  # symbols and words of mathematics: 1 at 3
    "code": 0.10,  # fences, diffs
    "trace": 0.20,  # stack traces, compiler errors
    "steps": 0.08,  # items of a list: 1 at 5
}

_DAMP = 0.3
"""What material counts when the task is a simple one: a long text to translate is no harder than a short one."""

_HEAD, _TAIL = 2048, 1024  # characters of a text that are looked at
_ASKED = 800  # characters from its beginning where the instruction is expected
_LAST = 240  # characters of a last paragraph that can hold it instead
_SYSTEM = 600  # characters; a longer system prompt describes an agent, not a task
_ITEMS = 32  # messages from the end
_PARTS = 8  # of a list of parts, from each end
_NODES = 64  # of one message


def _set(words: str) -> frozenset[bytes]:
    return frozenset(words.encode().split())


_SIMPLE = _set("""
    translate translation rephrase reword paraphrase summarise summarize summary shorten rewrite proofread spelling
    spell typo typos grammar punctuation capitalise capitalize uppercase lowercase format reformat convert sort
    alphabetical list bulleted bullets classify categorise categorize label tag tags sentiment extract title titles
    headline subject rename synonym synonyms antonym plural define count complete greet hello hi hey thanks thank
    commit branch docstring autocomplete route decide detect keywords query moderate turn polite name
""")
_HARD = _set("""
    prove proof disprove derive derivation show design architect architecture plan planning strategy debug diagnose
    investigate refactor optimise optimize analyse analyze analysis evaluate assess compare comparison recommend judge
    justify critique argue argument reason reasoning implement review estimate why explain model solve simulate
    migrate migration schedule separate root cause causes
""")
_TOPICS = _set("""
    tradeoff tradeoffs offs algorithm algorithms complexity concurrent concurrency concurrently deadlock race lock
    locks thread threads distributed consistency consistent replication failover partition crash crashes bug bugs
    invariant correctness guarantee guarantees counterexample scalable scale latency throughput bottleneck
    performance memory leak security secure attack attacks attacker vulnerability threat threats downtime risk risks
    assumption assumptions contradict contradiction hypothesis evidence experiment explanation explanations optimal
    maximise maximize minimise minimize constraint constraints approach approaches pros cons fails failing hangs
    wrong difficult edge cases async asynchronous parser compiler
""")
_LIMITS = _set("""
    must cannot never always least most without unless except only every each both exactly neither nor requirement
    requirements requires should whatever keep
""")
_MATHS = _set("""
    theorem lemma corollary prime primes integer integers continuous compact converge converges convergent derivative
    integral matrix eigenvalue eigenvalues vector polynomial probability expected variance modulo bijection induction
    inequality equation equations irrational finite infinite infinitely metric topology angle angles triangle graph
    asymptotic sequence sum maximises maximizes dice
""")
_QUESTION = _set("what who when where which is whats")

_FOLD = bytes(byte | 32 if 65 <= byte <= 90 else byte if 97 <= byte <= 122 else 32 for byte in range(256))  # noqa: PLR2004

_MATERIAL = re.compile(r":[ \n]|\n[ \t]{0,8}\n|```|<\w|[\"“«]")
_BRIEF = re.compile(
    r"\b(?:yes or no|true or false|(?:one|single|a few) words?|one (?:short )?sentence|one[- ]line|nothing else|"
    r"only the|the \w{1,20} only|just (?:the|yes)|(?:answer|reply|respond) (?:only|with)|output only|no explanation)\b",
    re.IGNORECASE,
)
_CODE = re.compile(r"```|^(?:diff --git|@@ |[+-]{3} [ab]/)", re.MULTILINE)
_TRACE = re.compile(
    r"Traceback \(most|^[ \t]{1,16}at \S|(?:Error|Exception)\b|\bpanic:|\b(?:fatal )?error(?:\[\w{1,8}\])?: |"
    r"[Ss]egmentation fault|undefined reference|\bcore dumped|^note: ",
    re.MULTILINE,
)
_FAILED = re.compile(
    r"\b(?:FAILED|FAILURES?|\d{1,6} failed|exit(?:ed with)? (?:code|status) [1-9]|command not found)\b"
)
_SYMBOLS = re.compile(
    r"[∀∃∑∏∫√≤≥≠∈∉⊂⊆∞ℝℕℤℚℂ∂∇≡⇒⇔]|\\(?:frac|sum|int|forall|exists|begin|mathbb)|\b\d?[a-z]\^\d|\d[a-z] [+=]"
)
_STEP = re.compile(r"^[ \t]{0,8}(?:[-*•]|\d{1,3}[.)]) ", re.MULTILINE)

_LISTS = ("messages", "input", "contents")  # where chat, responses and Gemini keep the conversation
_SYSTEMS = ("system", "instructions", "systemInstruction")  # where others keep the system prompt
_TEXTS = ("text", "content", "parts", "output", "functionResponse", "response", "result")  # where parts keep text
_RESULTS = ("tool_result", "function_call_output")
_EFFORTS = {"none": -1.0, "minimal": -1.0, "low": -0.5, "medium": 0.0, "high": 1.0, "xhigh": 1.0, "max": 1.0}


def complexity(exchange: Exchange) -> float:
    """How hard a request looks, from 0 (easy) to 1 (hard). Takes any body and never raises."""
    score = BASE
    for name, value in signals(exchange).items():
        score += WEIGHTS[name] * value
    return min(max(score, 0.0), 1.0)


def signals(exchange: Exchange) -> dict[str, float]:
    """The signals of a request by the names in WEIGHTS, those that are 0 left out or 0."""
    body, ask = exchange.json, exchange.ask
    items = next((found for name in _LISTS if isinstance(found := body.get(name), list)), [])
    asked_for, result = _last(items)
    if not asked_for and not result:
        asked_for = _strings([value for key, value in islice(body.items(), _ITEMS) if key not in _NO_TEXT])
    text, size = _sample(asked_for)
    system = _simple_system(body, items)
    found = _asked(text, size, system)
    found["context"] = _log(len(exchange.body) - ask.image_bytes, 16 << 10, 256 << 10)
    found["turns"] = _part(len(items) - 3, 17)
    tools = body.get("tools")
    found["tools"] = _part(len(tools), 10) if isinstance(tools, list) else 0.0
    found["schema"] = float(_wants_schema(body))
    found["effort"] = _effort(body)
    found["images"] = float(ask.images > 0)
    found["system"] = float(system)
    if ask.max_output_tokens is not None:
        found["limit"] = 1 - _log(ask.max_output_tokens, 16, 256)
    if result is not None:
        found["result"] = 1.0
        answer, _ = _sample(result)
        found["failure"] = float(bool(_TRACE.search(answer) or _FAILED.search(answer)))
    return found


_NO_TEXT = frozenset(("model", "tools", *_SYSTEMS))


def _asked(text: str, size: int, system: bool) -> dict[str, float]:
    """The signals of the last user message. `system`: the system prompt gives a simple task."""
    cut = _MATERIAL.search(text, 0, _ASKED)
    instruction = text[: cut.start() if cut and cut.start() > 0 else _ASKED]
    words = _words(instruction)
    kind, place = _task(words)
    if (kind == 0 or place > 8) and len(text) > len(instruction):
        last = text[-_LAST:].rpartition("\n\n")[2]
        after = _words(last)
        other, where = _task(after)
        if other and (kind == 0 or where < 5):
            instruction, words, kind, place = last, after, other, where
    weak = kind < 0 or system
    damp = _DAMP if weak else 1.0
    different = set(words)
    every = words if weak else _words(text)
    hard = len(_HARD & different) + len(_TOPICS & different)
    maths = len(_MATHS & different) + (len(_SYMBOLS.findall(text)) if not weak else 0)
    return {
        "length": damp * _log(size, 80, 2048),
        "task": 0.0 if system and kind > 0 else kind * (1.0 if place < 8 else 0.5),
        "simple": _part(len(_SIMPLE & different) - (kind < 0), 2),
        "hard": (_DAMP if system else 1.0) * _part(hard - (kind > 0), 4),
        "brief": float(_BRIEF.search(instruction) is not None or _BRIEF.search(text[-_LAST:]) is not None),
        "fact": float(size < 120 and bool(words) and words[0] in _QUESTION),
        "questions": damp * _part(text.count("?") + text.count("？") - 1, 2),
        "limits": (_DAMP if system else 1.0) * _part(sum(map(_LIMITS.__contains__, every)), 5),
        "maths": (_DAMP if system else 1.0) * _part(maths, 3),
        "code": damp * float(_CODE.search(text) is not None),
        "trace": damp * float(_TRACE.search(text) is not None),
        "steps": damp * _part(len(_STEP.findall(text)), 5),
    }


def _task(words: Sequence[bytes]) -> tuple[int, int]:
    """What the first telling word says, simple (-1) or hard (1), and its place; (0, 0) when there is none."""
    for place, word in enumerate(words):
        if word in _SIMPLE:
            return -1, place
        if word in _HARD:
            return 1, place
    return 0, 0


def _simple_system(body: Mapping[str, Any], items: Sequence[Any]) -> bool:
    """True when a short system prompt gives a simple task: then what the user says is its material."""
    found: Any = next((body[name] for name in _SYSTEMS if name in body), None)
    if found is None and items and isinstance(items[0], dict) and items[0].get("role") in ("system", "developer"):
        found = items[0].get("content")
    pieces = _strings(found)
    if not pieces or sum(map(len, pieces)) > _SYSTEM:
        return False
    text, _ = _sample(pieces)
    kind, _ = _task(_words(text))
    return kind < 0 or (kind == 0 and _BRIEF.search(text) is not None)


def _last(items: Sequence[Any]) -> tuple[list[str], list[str] | None]:
    """The texts of the last user message; those of the last message if it is a tool's result, else None."""
    result: list[str] | None = None
    for index in range(len(items) - 1, max(len(items) - 1 - _ITEMS, -1), -1):
        item = items[index]
        if isinstance(item, str):
            return [item], result
        if not isinstance(item, dict):
            continue
        if _is_result(item):
            if index == len(items) - 1:
                result = _strings(item)
        elif item.get("role", "user") == "user" and (texts := _strings(item)):
            return texts, result
    return [], result


def _is_result(item: Mapping[str, Any]) -> bool:
    """True for what a tool answered, in the shape of any API."""
    if item.get("role") in ("tool", "function") or item.get("type") in _RESULTS:
        return True
    parts = item.get("content") or item.get("parts")
    return isinstance(parts, list) and any(
        isinstance(part, dict) and (part.get("type") in _RESULTS or "functionResponse" in part) for part in _ends(parts)
    )


def _strings(value: Any) -> list[str]:
    """The texts at or below `value`, in order: at most _NODES values are visited."""
    found: list[str] = []
    todo = [value]
    for _ in range(_NODES):
        if not todo:
            break
        node = todo.pop()
        if isinstance(node, str):
            found.append(node)
        elif isinstance(node, list):
            todo.extend(reversed(_ends(node)))
        elif isinstance(node, dict):
            todo.extend(node[name] for name in _TEXTS if name in node)
    return found


def _ends(values: list[Any]) -> list[Any]:
    return values if len(values) <= 2 * _PARTS else values[:_PARTS] + values[-_PARTS:]


def _sample(pieces: Sequence[str]) -> tuple[str, int]:
    """The beginning and the end of a text in pieces, and about how many bytes of UTF-8 the whole has."""
    total = sum(map(len, pieces))
    if total <= _HEAD + _TAIL:
        text = "\n".join(pieces)
    else:
        head = _take(pieces, _HEAD, slice(0, _HEAD))
        tail = _take(reversed(pieces), _TAIL, slice(-_TAIL, None))
        text = "\n".join([*head, *reversed(tail)])
    if text and not text.isascii():
        total = total * len(text.encode("utf-8", "surrogatepass")) // len(text)
    return text, total


def _take(pieces: Iterable[str], room: int, part: slice) -> list[str]:
    taken: list[str] = []
    for piece in pieces:
        if room <= 0:
            break
        cut = piece[part]
        cut = cut[:room] if part.stop else cut[-room:]
        taken.append(cut)
        room -= len(cut)
    return taken


def _words(text: str) -> list[bytes]:
    """Its words in lower-case ASCII letters; everything else separates them."""
    return text.encode("ascii", "replace").translate(_FOLD).split()


def _wants_schema(body: Mapping[str, Any]) -> bool:
    for wanted in (body.get("response_format"), _inner(body, "text", "format"), body.get("tool_choice")):
        kind = wanted.get("type") if isinstance(wanted, dict) else None
        if isinstance(kind, str) and kind in ("json_schema", "json_object", "function", "tool"):
            return True
    return False


def _effort(body: Mapping[str, Any]) -> float:
    effort = body.get("reasoning_effort") or _inner(body, "reasoning", "effort")
    if isinstance(effort, str):
        return _EFFORTS.get(effort, 0.0)
    return float(_inner(body, "thinking", "type") == "enabled")


def _inner(body: Mapping[str, Any], name: str, key: str) -> Any:
    value = body.get(name)
    return value.get(key) if isinstance(value, dict) else None


def _part(count: int, full: int) -> float:
    return min(max(count / full, 0.0), 1.0)


def _log(value: int, nothing: int, full: int) -> float:
    """0 at `nothing` and below, 1 at `full` and above, by the logarithm between."""
    if value <= nothing:
        return 0.0
    return min(math.log(value / nothing) / math.log(full / nothing), 1.0)


class Complexity:
    """The weakest choice that may get the request, then the stronger ones, then the weaker ones from the strong end.

    The choices stand in the settings from the weakest to the strongest.
    """

    def __init__(self, name: str, sticky: StickySettings | None, history: History) -> None:
        self._scored: tuple[str, float] = "", 0.0  # which exchange
        self._score = 0.0

    def order(self, choices: Sequence[Choice], exchange: Exchange) -> Sequence[Choice]:
        score = self._score = complexity(exchange)
        self._scored = exchange.id, exchange.started
        last = len(choices) - 1
        at = next((index for index, choice in enumerate(choices) if choice.max_complexity >= score), last)
        return [*choices[at:], *reversed(choices[:at])]

    def why(self, choice: Choice, exchange: Exchange) -> str:
        again = self._scored == (exchange.id, exchange.started)
        score = self._score if again else complexity(exchange)
        return f"complexity {score:.2f}, up to {choice.max_complexity:.2f}"


STRATEGY = Complexity

"""One conversation, independent of the API: the request, the answer to it, and its token counts.

Text. The answer repeats the last user message: "You said: hello". After tool results it is "The tool said: 18 degrees",
or "The tool failed: ..." when one of them is marked as an error; several are joined with "; ".

Tools. If tools are offered and the user spoke last, the first tool, or the required one, is called. All tools are
called when the message contains "parallel" and the request does not forbid it. Arguments are the smallest that fit the
schema. A message with 'call NAME with {"city": "Rome"}' has that tool called with these arguments. NAME may be the end
of a tool's name.

Thinking. If the request asks for it, every choice thinks first: "Let me think. You said: hello". When the last message
contains "redacted", APIs that have encrypted thinking show it encrypted.

Tokens are counted by one rule: one for each word between white space, 85 for each image, file or sound, at least one.
Thinking counts as output, and towards its limit; definitions of tools and earlier calls and thinking count nothing.
Input before the first cache mark is read from the cache, input between the first and the last mark is written to it;
the fault `cached=` sets the number read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import takewhile
from typing import Any, Literal, NamedTuple

import msgspec
from msgspec import Struct

from extproc.upstream.mock.conversation import (
    FRAGMENT,
    MAX_CHOICES,
    PIECE,
    QUOTED,
    TOKENS_PER_IMAGE,
    USER,
    of_length,
    said,
    spaced_json,
    stopped,
)
from tests.doubles.answers import Question, Refused, count_words
from tests.doubles.faults import odd
from tests.doubles.schemas import satisfy

__all__ = ["PIECE", "QUOTED", "TOKENS_PER_IMAGE", "spaced_json"]


class Part(Struct, frozen=True):
    """A piece of a turn: text, `media` (images and the like), or the `result` of a tool, which may hold both."""

    text: str = ""
    media: int = 0
    result: bool = False
    failed: bool = False
    mark: bool = False  # a cache mark follows it

    @property
    def tokens(self) -> int:
        return count_words(self.text) + TOKENS_PER_IMAGE * self.media


class Turn(Struct, frozen=True):
    role: Literal["system", "user", "assistant"]  # tool results are parts of a user's turn
    parts: Sequence[Part]


class Tool(Struct, frozen=True):
    name: str
    schema: Any = None


class Scene(Struct, frozen=True):
    """The content of a request."""

    turns: Sequence[Turn]
    tools: Sequence[Tool] = ()  # empty where they must not be called
    tool: str | None = None  # the required one
    parallel: bool = True
    json: bool = False
    schema: Any = None
    stops: Sequence[str] = ()
    limit: int | None = None  # output limit of each choice, in tokens
    choices: int = 1
    thinks: bool = False
    tools_marked: bool = False  # a cache mark follows the definitions of the tools


class Call(Struct, frozen=True):
    key: str  # unique; each API makes its kind of id of it
    name: str
    arguments: str  # JSON

    @property
    def input(self) -> Any:
        return msgspec.json.decode(self.arguments)

    @property
    def fragments(self) -> list[str]:
        """The arguments, cut as they are streamed."""
        return FRAGMENT.findall(self.arguments)


class Line(Struct, frozen=True):
    """One choice."""

    pieces: tuple[str, ...]  # of the text; empty when tools are called
    calls: tuple[Call, ...]
    finish: Literal["stop", "stop_sequence", "length", "tool_calls"]
    stop: str = ""  # the stop sequence that matched
    thinking: tuple[str, ...] = ()  # the pieces of the thinking
    redacted: bool = False  # whether the thinking is shown encrypted

    @property
    def text(self) -> str:
        return "".join(self.pieces)

    @property
    def thought(self) -> str:
        return "".join(self.thinking)

    @property
    def tokens(self) -> int:
        said = len(self.pieces) + sum(count_words(call.arguments) for call in self.calls)
        return max(1, said) + len(self.thinking)


class Likelihood(NamedTuple):
    """A token, its log probability, and the most likely tokens at its place, itself first."""

    text: str
    logprob: float
    others: list[tuple[str, float]]


class Counts(Struct, frozen=True):
    """Token counts. `input` includes `cached` and `written`, `output` includes `reasoning`."""

    input: int
    output: int
    cached: int
    written: int
    reasoning: int


class Play(Struct, frozen=True):
    lines: tuple[Line, ...]
    counts: Counts

    @property
    def line(self) -> Line:
        return self.lines[0]


def play(scene: Scene, question: Question) -> Play:
    """Answer a request."""
    lines = tuple(_line(scene, question, index) for index in range(min(scene.choices, MAX_CHOICES)))
    total, cached, written = _prompt_tokens(scene)
    if (asked := odd(question.faults).cached) is not None:
        cached = min(asked, total)
        written = min(written, total - cached)
    output = sum(line.tokens for line in lines)
    return Play(lines, Counts(total, output, cached, written, sum(len(line.thinking) for line in lines)))


def likelihoods(line: Line, others: int) -> list[Likelihood]:
    """Constant likelihoods for each token of the text."""
    return [
        Likelihood(piece, -0.25, [(piece if rank == 0 else f" other{rank}", -0.25 - rank) for rank in range(others)])
        for piece in line.pieces
    ]


def prompt_tokens(scene: Scene) -> int:
    return _prompt_tokens(scene)[0]


def result_text(value: Any) -> str:
    """The text of a tool's result, the same for JSON as a text and as an object."""
    if isinstance(value, str):
        try:
            decoded = msgspec.json.decode(value)
        except (msgspec.DecodeError, RecursionError):
            return value
        if not isinstance(decoded, dict | list):
            return value
        value = decoded
    return msgspec.json.encode(value).decode()


def _prompt_tokens(scene: Scene) -> tuple[int, int, int]:
    """All input tokens, those read from the cache, and those written to it."""
    total = 0
    marks = [0] if scene.tools_marked else []
    for part in (part for turn in scene.turns for part in turn.parts):
        total += part.tokens
        if part.mark:
            marks.append(total)
    return max(1, total), (marks[0] if marks else 0), (marks[-1] - marks[0] if marks else 0)


def _line(scene: Scene, question: Question, index: int) -> Line:
    who, heard = _heard(scene.turns)
    told = said(who, heard, index)
    thinking = tuple(PIECE.findall(f"Let me think. {told}")) if scene.thinks else ()
    redacted = "redacted" in heard
    calls: tuple[Call, ...] = ()
    if who == USER and _user_is_last(scene.turns):
        calls = _told(scene, question, index, heard) or _calls(scene, question, index, heard)
    if calls:
        return Line((), calls, "tool_calls", thinking=thinking, redacted=redacted)
    text, stop = stopped(_structured(scene) or of_length(told, question.faults.words), scene.stops)
    pieces = tuple(PIECE.findall(text))
    if scene.limit is not None and len(thinking) + len(pieces) > scene.limit:
        thinking = thinking[: scene.limit]
        pieces = pieces[: scene.limit - len(thinking)]
        return Line(pieces, (), "length", thinking=thinking, redacted=redacted)
    return Line(pieces, (), "stop_sequence" if stop else "stop", stop, thinking, redacted)


def _user_is_last(turns: Sequence[Turn]) -> bool:
    return next((turn.role for turn in reversed(turns) if turn.role != "system"), "") == "user"


def _heard(turns: Sequence[Turn]) -> tuple[str, str]:
    """The last turn that is not the assistant's: its role and its text. Neighbouring turns are one."""
    run: list[Part] = []
    for turn in reversed(turns):
        if turn.role == "user":
            run[:0] = turn.parts
        elif turn.role == "assistant" and run:
            break
    if not run or not run[-1].result:
        return USER, " ".join(part.text for part in run if part.text and not part.result)
    results = [*takewhile(lambda part: part.result, reversed(run))][::-1]
    who = "The tool failed" if any(part.failed for part in results) else "The tool said"
    return who, "; ".join(part.text.strip() for part in results if part.text.strip())


def _structured(scene: Scene) -> str | None:
    if not scene.json:
        return None
    return '{"answer": "stub"}' if scene.schema is None else spaced_json(satisfy(scene.schema))


_TELLING = re.compile(r"call (\w+) with (\{.*\})")


def _told(scene: Scene, question: Question, index: int, heard: str) -> tuple[Call, ...]:
    """The call that the message tells to make, of a tool that is offered."""
    told = _TELLING.search(heard)
    if told is None:
        return ()
    arguments = told[2].replace('\\"', '"')  # some agents quote the message
    tool = next((tool.name for tool in scene.tools if tool.name.endswith(told[1])), None)
    if tool is None or not _is_json(arguments):
        return ()
    return (Call(f"{question.digest[:16]}_{index}_0", tool, arguments),)


def _is_json(text: str) -> bool:
    try:
        msgspec.json.decode(text)
    except msgspec.DecodeError:
        return False
    return True


def _calls(scene: Scene, question: Question, index: int, heard: str) -> tuple[Call, ...]:
    tools: Iterable[Tool] = scene.tools
    if scene.tool is not None:
        tools = [tool for tool in tools if tool.name == scene.tool]
        if not tools:
            raise Refused(400, f"'tool_choice' names {scene.tool!r}, which is not among 'tools'.", param="tool_choice")
    elif not scene.parallel or "parallel" not in heard:
        tools = scene.tools[:1]
    return tuple(
        Call(f"{question.digest[:16]}_{index}_{position}", tool.name, _arguments(tool))
        for position, tool in enumerate(tools)
    )


def _arguments(tool: Tool) -> str:
    made = satisfy(tool.schema)
    return spaced_json(made if isinstance(made, dict) else {})

"""A view of a chat API's requests: turns, parts, tools and results, with their places in the JSON.

`View` has the readings that are equal for all APIs. A subclass in a room's `ask.py` describes one API: field names, and
small readings of one turn, part or tool. A new kind of part is a line of `read_part`. All methods but `read` accept any
JSON and never raise; `texts` and `without_hosted` require a body that `read` accepted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

from extproc.dialects import _tooling
from extproc.dialects._calls import add_calls
from extproc.dialects._conversation import count, ends, first_instructions, last_said, pieces
from extproc.dialects._refusals import wrong
from extproc.dialects._tooling import name_of, objects
from extproc.words.api import Objects
from extproc.words.dialect import Ask, Conversation, Fields, Result, Text, Tooling, Withheld, Without, strings
from extproc.words.messages import Effort

_OPENING = 8  # turns before the user's first one
_COUNTS = ("n", "best_of", "candidateCount")  # fields with the number of answers

Node = dict[str, Any]


class Answered(NamedTuple):
    """A tool's result in a part or a turn. See `Result`."""

    tool: str
    content: Any
    written: Callable[[str], Any] | None
    omitted: int = 0


class Call(NamedTuple):
    """A tool call in a part or a turn. A result names its call by one of `keys`."""

    tool: str
    arguments: Any
    keys: Sequence[Any]


class View:
    """Requests of one API. A turn is an object in the list `turns_at`: a message, or an input item."""

    fields: Fields
    objects: Objects
    turns_at: ClassVar[str] = "messages"
    """Field of the turns."""
    turns_first: ClassVar[bool] = True
    """True: texts of turns come first. False: texts have the body's order."""
    parts_at: ClassVar[str] = "content"
    """Field of a turn's parts."""
    system_at: ClassVar[str] = ""
    """Field of the system prompt; empty: the first turn has it."""
    settings_at: ClassVar[str] = ""
    """Field of the object with temperature and other settings; empty: the request has them itself."""
    functions_at: ClassVar[str] = ""
    """Field of tools beside `tools`."""
    hosted_at: ClassVar[Sequence[str]] = ()
    """Fields beside `tools` that enable the provider's own tools."""
    kept_at: ClassVar[Sequence[str]] = ()
    """Fields that name a kept conversation, which may hold results of any tool."""
    hold_text: ClassVar[Sequence[str]] = ("text", "content")
    """Fields of text in turns and parts."""
    roles: ClassVar[frozenset[str]] = frozenset()
    """Values of `role` that are not the client's text."""
    speakers: ClassVar[Mapping[str, str]] = {}
    """Role of texts by top-level field; `request` for other fields."""
    deep: ClassVar[bool] = True
    """True: calls and results are parts. False: they are turns."""

    # --- descriptions of one turn, part or tool

    def speaker(self, turn: Node) -> str:
        """Role of the texts in a turn."""
        return name_of(turn.get("role"))

    def is_result(self, node: Node) -> bool:
        """True for a result of a client's tool."""
        raise NotImplementedError

    def calls_in(self, node: Node) -> Sequence[Call]:
        """Tool calls in a part or a turn."""
        raise NotImplementedError

    def results_in(self, node: Node, names: Mapping[Any, str]) -> Sequence[Answered]:
        """Results in a part or a turn. `names` are the tools of earlier calls, by key."""
        raise NotImplementedError

    def hosted_in(self, node: Node) -> Sequence[str]:  # noqa: ARG002
        """Names of hosted tools' output in a part or a turn."""
        return ()

    def own_tool(self, tool: Any) -> tuple[Sequence[Any], Sequence[Any]]:
        """The part of a `tools` entry that the client runs, if any; and names of the hosted tools in it."""
        if not isinstance(tool, dict) or self.is_own(tool.get("type")):
            return (tool,), ()
        return (), (tool.get("type"),)

    def hosted_name(self, name: Any) -> Any:
        """A hosted tool's name in OpenAI's spelling."""
        return name

    def is_own(self, kind: Any) -> bool:
        """True for a type of tool that the client runs."""
        raise NotImplementedError

    def offered(self, body: Mapping[str, Any]) -> Iterable[tuple[Any, Any]]:
        """Tools that the client runs: (name, schema of the arguments)."""
        raise NotImplementedError

    def schema(self, body: Mapping[str, Any]) -> Any:
        """JSON Schema of the answer; an empty one for any object, None for a free answer."""
        raise NotImplementedError

    def is_shaped(self, body: Mapping[str, Any]) -> bool:
        """`Conversation.shaped`."""
        raise NotImplementedError

    def effort(self, body: Mapping[str, Any]) -> Effort | None:
        """The request's effort of reasoning."""
        raise NotImplementedError

    def read_part(self, part: Node, ask: Ask) -> None:
        """Note a part's media, and input that it refers to."""
        raise NotImplementedError

    # --- readings

    def turns(self, body: Mapping[str, Any]) -> list[Node]:
        """Turns of a request. Raises Refusal (400) without turns, or for a turn that is not an object."""
        name = self.turns_at
        found = body.get(name)
        if not isinstance(found, list) or not found:
            raise wrong(f"'{name}' must be a list with at least one {_A_TURN.get(name, 'message')}.", name)
        return self.checked(found)

    def checked(self, turns: list[Any]) -> list[Node]:
        """`turns`, checked to be objects. Raises Refusal (400)."""
        for index, turn in enumerate(turns):
            if not isinstance(turn, dict):
                where = f"{self.turns_at}[{index}]"
                raise wrong(f"'{where}' must be an object.", where)
        return turns

    def read_parts(self, parts: Any, ask: Ask) -> None:
        """Note the media of a list of parts. A text in place of the list has no media."""
        if isinstance(parts, list):
            for part in parts:
                if isinstance(part, dict):
                    self.read_part(part, ask)

    def read_tools(self, tools: Any, field: str, ask: Ask) -> Sequence[Any]:
        """Note hosted tools. Returns the entries with one."""
        found = []
        for tool in tools if isinstance(tools, list) else ():
            for name in (names := self.own_tool(tool)[1]):
                ask.add_hosted(self.hosted_name(name), field)
                add_calls(ask, self.hosted_name(name), tool)
            if names:
                found.append(tool)
        return found

    def results(self, body: Mapping[str, Any]) -> Iterator[Result]:
        """See `Tools.results`."""
        names: dict[Any, str] = {}
        turns = body.get(self.turns_at)
        for holder in [turn.get(self.parts_at) for turn in objects(turns)] if self.deep else [turns]:
            for key, node in enumerate(holder if isinstance(holder, list) else ()):
                if isinstance(node, dict):
                    names.update((key, call.tool) for call in self.calls_in(node) for key in call.keys)
                    for tool, content, written, omitted in self.results_in(node, names):
                        yield Result(tool, content, holder, key, written, omitted)

    def tooling(self, body: Mapping[str, Any]) -> Tooling:
        """See `Tools.tooling`."""
        turns = body.get(self.turns_at)
        of_user = sum(self.speaker(turn) == "user" for turn in objects(turns))
        kept = [""] if any(body.get(name) is not None for name in self.kept_at) else []
        return Tooling(
            answer=self.schema(body),
            offered={name_of(name): schema for name, schema in self.offered(body)},
            turns=of_user if isinstance(turns, list) else int(bool(turns)),
            results=[*kept, *(result.tool for result in self.results(body))],
        )

    def without_tools(self, body: Mapping[str, Any], withheld: Withheld) -> Without:
        """See `Tools.without`."""
        return _tooling.without_tools(body, withheld)

    def without_hosted(self, body: Mapping[str, Any]) -> tuple[Mapping[str, Any], Sequence[str]]:
        """See `ClientTranslation.without_hosted`."""
        dropped = [name for name in self.hosted_at if body.get(name) not in (None, [])]
        made = {name: value for name, value in body.items() if name not in self.hosted_at}
        if isinstance(tools := body.get("tools"), list):
            made["tools"] = self.own_tools(tools, dropped)
            if not made["tools"]:
                del made["tools"]
        if isinstance(turns := body.get(self.turns_at), list):
            made[self.turns_at] = self._own_turns(turns, dropped)
        return made, list(dict.fromkeys(dropped))

    def own_tools(self, tools: list[Any], dropped: list[str]) -> list[Any]:
        """Tools that the client runs. Names of hosted ones are added to `dropped`."""
        found = [self.own_tool(tool) for tool in tools]
        dropped += [f"tools.{name}" for _, names in found for name in names]
        return [tool for own, _ in found for tool in own]

    def _own_turns(self, turns: list[Any], dropped: list[str]) -> list[Any]:
        if not self.deep:
            return self._own_nodes(turns, dropped)
        made = []
        for turn in turns:
            parts = turn.get(self.parts_at)
            if isinstance(parts, list):
                turn = {**turn, self.parts_at: self._own_nodes(parts, dropped)}  # noqa: PLW2901
            made.append(turn)
        return made

    def _own_nodes(self, nodes: list[Any], dropped: list[str]) -> list[Any]:
        own = []
        for node in nodes:
            if names := self.hosted_in(node) if isinstance(node, dict) else ():
                dropped += [f"{self.turns_at}.{name}" for name in names]
            else:
                own.append(node)
        return own

    def texts(self, body: Mapping[str, Any]) -> Iterator[Text]:
        """See `ClientAPI.texts`."""
        for key in sorted(body, key=self.turns_at.__ne__) if self.turns_first else body:
            definitions = key in ("tools", self.functions_at)
            value, role = body[key], self.speakers.get(key, "definition" if definitions else "request")
            if key == self.turns_at and isinstance(value, list):
                for index, turn in enumerate(value):
                    yield from self._texts_of(turn, f"{key}[{index}]")
            elif not isinstance(value, str):
                yield from strings(value, role, key)
            elif key != self.fields.model:
                yield Text(role, key, body, key)

    def _texts_of(self, turn: Node, where: str) -> Iterator[Text]:
        role = self.speaker(turn)
        for key, value in turn.items():
            at = f"{where}.{key}"
            if isinstance(value, str):
                if not (key == "role" and value in self.roles):
                    yield Text(role, at, turn, key)
            elif key == self.parts_at and isinstance(value, list):
                for index, part in enumerate(value):
                    if isinstance(part, str):
                        yield Text(role, f"{at}[{index}]", value, index)
                    else:
                        result = self.deep and isinstance(part, dict) and self.is_result(part)
                        yield from strings(part, "tool" if result else role, f"{at}[{index}]")
            else:
                yield from strings(value, role, at)

    def conversation(self, body: Mapping[str, Any]) -> Conversation:
        """See `ClientAPI.conversation`."""
        turns, system = body.get(self.turns_at), body.get(self.system_at) if self.system_at else None
        last, result = last_said(turns, self.hold_text, self._answers)
        return Conversation(
            asked=last,
            turns=count(turns),
            result=result,
            system=pieces(first_instructions(turns) if system is None else system, self.hold_text),
            tools=self.tool_count(body.get("tools")),
            shaped=self.is_shaped(body),
            effort=self.effort(body),
        )

    def tool_count(self, tools: Any) -> int:
        """Number of tools that a request offers."""
        return count(tools)

    def _answers(self, turn: Node) -> bool:
        """True for a turn that is a tool's result, or has one at its beginning or end."""
        if not self.deep:
            return self.is_result(turn)
        parts = turn.get(self.parts_at)
        return isinstance(parts, list) and any(isinstance(part, dict) and self.is_result(part) for part in ends(parts))

    def prefix(self, body: Mapping[str, Any]) -> tuple[Sequence[Any], Sequence[Any]]:
        """See `Reuse.prefix`. All later requests of the conversation have the same one, unless the client changes
        it.
        """
        steady = [body[name] for name in ("tools", self.functions_at, self.system_at) if name and body.get(name)]
        turns = body.get(self.turns_at)
        if not isinstance(turns, list):
            return steady, [turns] if turns else []
        opening: list[Any] = []
        for turn in turns[:_OPENING]:
            role = turn.get("role") if isinstance(turn, dict) else None
            if role in ("system", "developer") and not opening:
                steady.append(turn)
                continue
            opening.append(turn)
            if role == "user":
                break
        return steady, opening

    def varies(self, body: Mapping[str, Any]) -> bool:
        """See `Reuse.varies`."""
        settings = body.get(self.settings_at, {}) if self.settings_at else body
        return varies(settings if isinstance(settings, dict) else {}) or bool(body.get("tools"))


_A_TURN = {"contents": "turn"}


def varies(body: Mapping[str, Any]) -> bool:
    """True for a temperature above 0 without a seed, for several choices, and for offered functions.

    A request without a temperature uses the provider's default, and does not count. Never raises.
    """
    if body.get("temperature") not in (None, 0) and body.get("seed") is None:
        return True
    return any(body.get(name) not in (None, 1) for name in _COUNTS) or bool(body.get("functions"))

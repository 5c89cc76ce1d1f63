"""Names of tools that the provider's API takes: groups become part of the names, and long names are shortened. The
answer gets the client's names back.

Each try has the client's request, so nothing is kept between requests. The same name always becomes the same one, as
earlier calls in the conversation have it, too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from extproc.words.api import Able
from extproc.words.messages import Delta, Part, Prompt, ToolCall, ToolResult

_DIGEST = 8  # characters


class ToolNames:
    """Changes the names in a prompt, and knows what they were."""

    def __init__(self, prompt: Prompt, able: Able) -> None:
        self._most = able.tool_names
        self._groups = able.namespaces
        self._letters = able.tool_letters
        self._there: dict[tuple[str, str], str] = {}
        self._here: dict[str, tuple[str, str]] = {}
        for tool in prompt.tools:  # those without a group first: their names are the ones that a choice can mean
            if not tool.namespace:
                tool.name = self._name("", tool.name)
        for tool in prompt.tools:
            if tool.namespace and not self._groups:
                tool.name, tool.namespace = self._name(tool.namespace, tool.name), ""
                if tool.about:
                    tool.description = f"{tool.about}\n\n{tool.description}".strip()
        for message in prompt.messages:
            for part in message.parts:
                if isinstance(part, ToolCall) and not (part.namespace and self._groups):
                    part.name, part.namespace = self._name(part.namespace, part.name), ""
                elif isinstance(part, ToolResult) and part.name:
                    part.name = self._name("", part.name)
        bare = [name for group, name in self._there if group]
        for (group, name), made in [*self._there.items()]:
            # Some models answer with the name alone: https://github.com/router-for-me/CLIProxyAPI/issues/4106
            if group and made != name and bare.count(name) == 1 and ("", name) not in self._there:
                self._here.setdefault(name, (group, name))
        if prompt.tool_choice is not None and prompt.tool_choice.name:
            prompt.tool_choice.name = self._chosen(prompt.tool_choice.name)

    @property
    def changed(self) -> bool:
        """Whether any name is another than the client's."""
        return bool(self._here)

    def restore(self, calls: Iterable[Part | Delta]) -> None:
        """Give calls the names that the client knows."""
        for call in calls:
            if isinstance(call, ToolCall | Delta) and (was := self._here.get(call.name)) is not None:
                call.namespace, call.name = was

    def _name(self, group: str, name: str) -> str:
        key = group, name
        known = self._there.get(key)
        if known is not None:
            return known
        made = f"{group}__{name}" if group else name
        if self._letters and made[:1].isdigit():
            made = f"_{made}"
        if len(made) > self._most or self._here.get(made, key) != key or (group and ("", made) in self._there):
            digest = hashlib.blake2s(f"{group}\n{name}".encode(errors="replace"), digest_size=_DIGEST // 2).hexdigest()
            made = f"{made[: self._most - _DIGEST - 1]}_{digest}"
        self._there[key] = made
        if made != name:
            self._here[made] = key
        return made

    def _chosen(self, name: str) -> str:
        """The tool that a choice names: it may be one of a group."""
        return next((made for (_, known), made in self._there.items() if known == name), name)

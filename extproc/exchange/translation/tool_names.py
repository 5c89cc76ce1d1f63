"""Tool names that the provider's API accepts: group names become part of tool names, and long names are shortened. The
answer has the client's names again.

Each try has the client's request, so no names are kept between requests. A name is always changed in the same way,
because earlier calls in the conversation have it, too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from extproc.words.api import Able
from extproc.words.messages import Delta, Part, Prompt, ToolCall, ToolResult

_DIGEST = 8  # characters of a digest


class ToolNames:
    """Changes tool names in a prompt, and remembers the client's names."""

    def __init__(self, prompt: Prompt, able: Able) -> None:
        self._most = able.tool_names
        self._groups = able.namespaces
        self._letters = able.tool_letters
        self._there: dict[tuple[str, str], str] = {}
        self._here: dict[str, tuple[str, str]] = {}
        for tool in prompt.tools:  # tools without a group come first: a tool choice names them
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
            # Some models answer without the group's name: https://github.com/router-for-me/CLIProxyAPI/issues/4106
            if group and made != name and bare.count(name) == 1 and ("", name) not in self._there:
                self._here.setdefault(name, (group, name))
        if prompt.tool_choice is not None and prompt.tool_choice.name:
            prompt.tool_choice.name = self._chosen(prompt.tool_choice.name)

    @property
    def changed(self) -> bool:
        """True when any name differs from the client's."""
        return bool(self._here)

    def restore(self, calls: Iterable[Part | Delta]) -> None:
        """Restore the client's names in calls."""
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
        """The changed name of a tool choice; its tool may be in a group."""
        return next((made for (_, known), made in self._there.items() if known == name), name)

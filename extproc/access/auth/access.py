"""Access: the consumer behind a credential, and the models granted to it, its team and its groups."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from extproc.access.auth.settings import ConsumerSettings, GroupSettings, TeamSettings
from extproc.words.chain import Chain
from extproc.words.exchange import Consumer, Requirement
from extproc.words.values import Patterns


@dataclass(slots=True, frozen=True)
class Identity:
    """The consumer that one credential stands for."""

    consumer: Consumer
    key: str  # name of the credential: not secret, and equal in every replica
    expires: float | None = None  # seconds since the epoch
    disabled: bool = False


class ToolGrants:
    """Tools that a consumer may use: every list of patterns has to grant a tool. Without lists no tool is granted.

    Names are `profile/name`, with the name of the tool or prompt, or the URI of the resource, that clients see.
    """

    __slots__ = ("_entered", "_lists", "key")

    def __init__(self, lists: Sequence[Patterns] = ()) -> None:
        self._lists = lists
        self._entered: dict[str, bool] = {}  # results of `enters`, which every request calls
        # The key of the grants: equal grants have equal keys.
        self.key = tuple([patterns.texts for patterns in lists])

    def __call__(self, name: str) -> bool:
        """True when the tool of that name is granted."""
        return bool(self._lists) and all(patterns(name) for patterns in self._lists)

    def enters(self, profile: str) -> bool:
        """True when a tool of the profile, one of the settings, could be granted."""
        if (known := self._entered.get(profile)) is None:
            known = self._entered[profile] = self._enters(f"{profile}/")
        return known

    def _enters(self, start: str) -> bool:
        return bool(self._lists) and all(
            any(_may_begin(text, start) for text in patterns.texts) for patterns in self._lists
        )


def _may_begin(pattern: str, start: str) -> bool:
    """True when a name with that beginning can match."""
    head, star, _ = pattern.partition("*")
    return head.startswith(start) or bool(star and start.startswith(head))


class Access:
    """Grants. A model must be granted by the consumer, by its team and by one of its groups, each if it names models.

    `before` and `consumers` come from the settings before a change that waits for Envoy (`Consumer.before`).
    """

    def __init__(
        self,
        teams: Mapping[str, TeamSettings],
        groups: Mapping[str, GroupSettings],
        before: Access | None = None,
        consumers: Mapping[str, ConsumerSettings] | None = None,
    ) -> None:
        self.before = before
        self._earlier = consumers or {}
        self.teams = {name: _patterns(team.models) for name, team in teams.items()}
        self.groups = {name: _patterns(group.models) for name, group in groups.items()}
        self._labels = {name: team.labels for name, team in teams.items()}
        self._require = {name: team.require for name, team in teams.items() if team.require is not None}
        self._team_tools = {name: _patterns(team.tools) for name, team in teams.items()}
        self._group_tools = {name: _patterns(group.tools) for name, group in groups.items()}

    def consumer(self, settings: ConsumerSettings) -> Consumer:
        """The consumer with that name in the settings."""
        labels = {**self.labels(settings.team), **settings.labels}
        may_use = self.may_use(settings.team, settings.groups, settings.models)
        tools = self.tools(settings.team, settings.groups, settings.tools)
        groups, earlier = tuple(settings.groups), self._earlier.get(settings.name)
        before = self.before.consumer(earlier) if self.before is not None and earlier is not None else None
        require = self.require(settings.team) + ((settings.require,) if settings.require is not None else ())
        return Consumer(
            settings.name, settings.team or "", labels, may_use, groups, tools=tools, require=require, before=before
        )

    def require(self, team: str | None) -> tuple[Requirement, ...]:
        """The requirements for every member of the team."""
        return (self._require[team],) if team in self._require else ()

    def labels(self, team: str | None) -> Mapping[str, str]:
        """The labels of every member of the team."""
        return self._labels.get(team, {}) if team else {}

    def may_use(
        self, team: str | None, groups: Sequence[str], models: Sequence[str] | None = None
    ) -> Callable[[str], bool]:
        """True when the model is granted, by its name. Unknown names of teams and groups add nothing."""
        grants = _grants(_patterns(models), self.teams.get(team or ""), [self.groups.get(name) for name in groups])
        if not grants:
            return everything
        return grants[0] if len(grants) == 1 else lambda model: all(patterns(model) for patterns in grants)

    def tools(self, team: str | None, groups: Sequence[str], tools: Sequence[str] | None = None) -> ToolGrants:
        """The granted tools. Unknown names of teams and groups add nothing."""
        shared = [self._group_tools.get(name) for name in groups]
        return ToolGrants(_grants(_patterns(tools), self._team_tools.get(team or ""), shared))


def earlier_grants(consumer: Consumer, chain: Chain, wanted: Chain) -> Callable[[str], bool]:
    """The grants for the targets of `chain`, which replaces the chain `wanted` until Envoy has that chain's providers.

    A consumer that may use a target of `wanted` may keep using targets of `chain` granted to it before the change. A
    target of both chains still needs its grant, as long as another target remains.
    """
    now, before = consumer.may_use, (consumer.before or consumer).may_use
    names, to_come = {target.name for target in chain.targets}, {target.name for target in wanted.targets}
    if not any(map(now, to_come - names)):
        return now if any(map(now, to_come)) else nothing
    earlier = {name for name in names if now(name) or before(name)}
    kept = {name for name in earlier if now(name) or name not in to_come}
    return (kept or earlier).__contains__


def _grants(own: Patterns | None, team: Patterns | None, groups: Sequence[Patterns | None]) -> Sequence[Patterns]:
    """The lists that each have to grant a name: the consumer's, the team's, and that of all groups together."""
    shared = [patterns for patterns in groups if patterns is not None]
    joined = Patterns([text for patterns in shared for text in patterns.texts]) if shared else None
    return [patterns for patterns in (own, team, joined) if patterns is not None]


def everything(_model: str) -> bool:
    """The grant of consumers that name no models."""
    return True


def nothing(_model: str) -> bool:
    """The grant of tokens whose claims name no known team or group, although the settings require one."""
    return False


def _patterns(models: Sequence[str] | None) -> Patterns | None:
    return None if models is None else Patterns(models)

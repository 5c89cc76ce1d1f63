"""Access: the consumer behind a credential, and the models granted to it, its team and its groups."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from extproc.auth.settings import ConsumerSettings, GroupSettings, TeamSettings
from extproc.words.exchange import Consumer
from extproc.words.values import Pattern

_Patterns = Sequence[Pattern]


@dataclass(slots=True, frozen=True)
class Identity:
    """The consumer that one credential stands for."""

    consumer: Consumer
    key: str  # a name for the credential that is no secret and the same in every replica
    expires: float | None = None  # seconds since the epoch
    disabled: bool = False


class Access:
    """A model must be granted by the consumer, by its team and by one of its groups, where they name models."""

    def __init__(self, teams: Mapping[str, TeamSettings], groups: Mapping[str, GroupSettings]) -> None:
        self.teams = {name: _patterns(team.models) for name, team in teams.items()}
        self.groups = {name: _patterns(group.models) for name, group in groups.items()}
        self._labels = {name: team.labels for name, team in teams.items()}

    def consumer(self, settings: ConsumerSettings) -> Consumer:
        """A consumer of the settings."""
        labels = {**self.labels(settings.team), **settings.labels}
        may_use = self.may_use(settings.team, settings.groups, settings.models)
        return Consumer(settings.name, settings.team or "", labels, may_use, tuple(settings.groups))

    def labels(self, team: str | None) -> Mapping[str, str]:
        """The labels that every member of the team has."""
        return self._labels.get(team, {}) if team else {}

    def may_use(
        self, team: str | None, groups: Sequence[str], models: Sequence[str] | None = None
    ) -> Callable[[str], bool]:
        """True when the model is granted, by its name. Unknown names of teams and groups add nothing."""
        grants = [patterns for patterns in (_patterns(models), self.teams.get(team or "")) if patterns is not None]
        shared = [patterns for name in groups if (patterns := self.groups.get(name)) is not None]
        if shared:
            grants.append([pattern for patterns in shared for pattern in patterns])
        if not grants:
            return everything
        return lambda model: all(any(pattern(model) for pattern in patterns) for patterns in grants)


def everything(_model: str) -> bool:
    """The grant of consumers that name no models."""
    return True


def nothing(_model: str) -> bool:
    """The grant of tokens whose claims name no known team or group, where one is required."""
    return False


def _patterns(models: Sequence[str] | None) -> _Patterns | None:
    return None if models is None else [Pattern(model) for model in models]

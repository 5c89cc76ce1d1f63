import pytest

from extproc.settings.document import ConfigError


@pytest.fixture
def errors(settings):
    """`errors(text)`: the contradictions in settings that the smallest ones are added to, each `path: message`."""

    def found(text):
        try:
            settings(text)
        except ConfigError as error:
            return [f"{problem.path}: {problem.message}" for problem in error.problems]
        return []

    return found

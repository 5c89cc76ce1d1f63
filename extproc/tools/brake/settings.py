"""`brake:` of the filter YAML."""

from __future__ import annotations

from pydantic import Field

from extproc.words.values import Section


class BrakeSettings(Section):
    """Requests of agents that go in circles are refused: 429 `run_looping`."""

    repeats: int = Field(
        ge=2,
        le=1000,
        description="Repetitions from which a request is refused, `2` to `1000`: calls of the same tool with the same "
        "arguments that had the same result, since the user's last turn; or answers of the model in a row with neither "
        "a call nor a turn of the user between them. Agents that wait for something by asking again and again need "
        "more than that takes.",
    )

"""The end of a conversation: other APIs have no system messages there, and the model would go on with its own turn."""

from __future__ import annotations

from extproc.words.messages import Message, Prompt


def end_with_user(prompt: Prompt) -> None:
    """Move the system messages behind the model's last turn into a turn of the user's."""
    if prompt.late and prompt.messages and prompt.messages[-1].role == "assistant":
        prompt.messages.append(Message("user", [*prompt.system[-prompt.late :]]))
        del prompt.system[-prompt.late :]
        prompt.late = 0

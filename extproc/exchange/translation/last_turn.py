"""The end of a conversation. Many APIs have no system messages there, and without them the model would continue its own
turn.
"""

from __future__ import annotations

from extproc.words.messages import Message, Prompt


def end_with_user(prompt: Prompt) -> None:
    """Turn system messages behind the model's last turn into a user's turn."""
    if prompt.late and prompt.messages and prompt.messages[-1].role == "assistant":
        prompt.messages.append(Message("user", [*prompt.system[-prompt.late :]]))
        del prompt.system[-prompt.late :]
        prompt.late = 0

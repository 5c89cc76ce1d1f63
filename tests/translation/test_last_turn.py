"""System messages behind the model's last turn."""

import pytest

from extproc.dialects import client_apis
from extproc.exchange.translation.last_turn import end_with_user


def said(role, text):
    return {"role": role, "content": text}


@pytest.mark.parametrize(("api", "field"), [("openai_chat", "messages"), ("openai_responses", "input")])
@pytest.mark.parametrize(
    ("conversation", "system", "turns"),
    [
        ("s:1 u:2 a:3 d:4 s:5", ["1"], [("user", ["2"]), ("assistant", ["3"]), ("user", ["4", "5"])]),
        ("u:1 s:2", ["2"], [("user", ["1"])]),
        ("u:1 a:2 s:3 u:4", ["3"], [("user", ["1"]), ("assistant", ["2"]), ("user", ["4"])]),
        ("u:1 a:2 s:3 a:4", ["3"], [("user", ["1"]), ("assistant", ["2", "4"])]),
        ("s:1", ["1"], []),
    ],
)
def test_they_become_the_users_turn_there_alone(api, field, conversation, system, turns):
    roles = {"u": "user", "a": "assistant", "s": "system", "d": "developer"}
    items = [said(roles[word[0]], word[2:]) for word in conversation.split()]
    prompt = client_apis()[api].translation.decode_request({"model": "m", field: items})
    end_with_user(prompt)
    assert [part.text for part in prompt.system] == system
    found: list = []
    for message in prompt.messages:
        if not found or found[-1][0] != message.role:
            found.append((message.role, []))
        found[-1][1].extend(part.text for part in message.parts)
    assert found == turns

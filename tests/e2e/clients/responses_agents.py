"""An agent with a tool, in a framework's default form: Responses with `previous_response_id`.

    responses_agents.py agent_framework|agno plain|streamed BASE_URL KEY MODEL

It asks two questions in one session and prints both answers, a line each.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any


def weather(city: str) -> str:
    """The weather in a city."""
    return f"It is sunny in {city}."


async def agent_framework(url: str, key: str, model: str, *, streamed: bool) -> list[str]:
    from agent_framework import Agent
    from agent_framework.openai import OpenAIChatClient

    client: Any = OpenAIChatClient(model, base_url=url, api_key=key)
    agent: Any = Agent(client, "Use the tool.", tools=[weather])
    session = agent.create_session()
    answers = []
    for question in ("How is the weather in Rome?", "And in Oslo?"):
        if streamed:
            text = "".join([part.text async for part in agent.run(question, session=session, stream=True)])
        else:
            text = (await agent.run(question, session=session)).text
        answers.append(text)
    return answers


async def agno(url: str, key: str, model: str, *, streamed: bool) -> list[str]:
    from agno.agent import Agent
    from agno.db.in_memory import InMemoryDb
    from agno.models.openai import OpenAIResponses

    made: Any = OpenAIResponses(id=model, base_url=url, api_key=key)
    agent: Any = Agent(model=made, tools=[weather], db=InMemoryDb(), add_history_to_context=True, telemetry=False)
    answers = []
    for question in ("How is the weather in Rome?", "And in Oslo?"):
        if streamed:
            parts = [part async for part in agent.arun(question, session_id="s", stream=True)]
            text = "".join(part.content or "" for part in parts if part.event == "RunContent")
        else:
            text = (await agent.arun(question, session_id="s")).content
        answers.append(text)
    return answers


if __name__ == "__main__":
    _, framework, form, *where = sys.argv
    for answer in asyncio.run(globals()[framework](*where, streamed=form == "streamed")):
        print(" ".join(answer.split()))  # noqa: T201

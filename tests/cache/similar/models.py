"""Doubles of the two models that the cache asks, as they look from the wire: bodies of requests in, of answers out."""

import asyncio
import json
import re

YAML = """
consumers:
  - {name: ada, keys: [{env: KEY_ada}]}
  - {name: bob, keys: [{env: KEY_bob}]}
  - {name: own, keys: [{env: KEY_own}]}
cache:
  semantic:
    threshold: 0.9
    embeddings: {model: m, consumer: own}
    verify: {model: n, consumer: own}
  rules: [{ttl: 60s, semantic: enforce}]
"""
HEADERS = {name: {"authorization": f"Bearer sk-gw-{name}"} for name in ("ada", "bob")}
_MARK = re.compile(r"\A(data-[0-9a-f]{16})\n(.*)\n\1\Z", re.DOTALL)
_CODE = re.compile(r'"code": "([0-9a-f]{8})"')


class Asked:
    """One question to the model of `verify`, read from the body of its request."""

    def __init__(self, body, headers, seconds):
        [system, user] = body["messages"]
        found = _MARK.match(user["content"])
        self.mark, data = found[1], json.loads(found[2])
        self.system, self.body, self.headers, self.seconds = system["content"], body, headers, seconds
        self.kept, self.asked, self.conversation = data["answered"], data["asked_now"], data["conversation"]
        self.code = _CODE.search(self.system)[1]

    def says(self, same):
        return json.dumps({"same": same, "code": self.code})


class Models:
    """`vector(text)` and `judge(asked)` give what the models say; a Failure is raised."""

    def __init__(self):
        self.vectors, self.verdicts = [], []
        self.vector = lambda _text: [1.0, 0.0]  # every question is near to every other one
        self.judge = lambda asked: asked.says(False)

    async def post(self, path, body, headers, deadline):
        said = json.loads(body)
        await asyncio.sleep(0)
        if path.endswith("/embeddings"):
            self.vectors.append(said["input"][0] if isinstance(said["input"], list) else said["input"])
            data = [{"index": 0, "embedding": self.vector(self.vectors[-1])}]
            return json.dumps({"object": "list", "model": "m", "data": data}).encode()
        asked = Asked(said, headers, deadline - asyncio.get_running_loop().time())
        self.verdicts.append(asked)
        words = self.judge(asked)
        if isinstance(words, Exception):
            raise words
        if isinstance(words, bytes):
            return words
        choice = {"index": 0, "message": {"role": "assistant", "content": words}, "finish_reason": "stop"}
        return json.dumps({"model": "n", "choices": [choice]}).encode()

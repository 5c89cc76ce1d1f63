"""Sources with data of their own: exchanges of a week, two budgets and their grants."""

from __future__ import annotations

import json
import random
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

from extproc.money.ledger import Row, open_ledger
from extproc.money.ledger.comparing import CompareQuery
from extproc.money.ledger.query import FIELDS, ExchangeQuery, instant
from extproc.operate.reports import ReportError
from extproc.operate.reports.reports import matches
from extproc.operate.reports.settings_file import SettingsFile
from extproc.operate.telemetry.audit import act
from extproc.words.exchange import OUTCOMES

TOKENS = ("input_tokens", "output_tokens", "cached_tokens", "cache_write_tokens", "reasoning_tokens")
VECTORS = {"vectors": 2, "vector_bytes": 9000, "vector_failures": 0}
VECTORS |= {"verified_same": 0, "verified_different": 0, "verify_failures": 0}
SAMPLE = {"time": 1.5, "score": 0.97, "hit": True, "asked": "0a", "kept": "0b", "consumer": "ada", "team": "red"}
SAMPLE |= {"model": "m", "saved_usd": 0.001}
KEPT = ("cache_hits", "saved_usd", "shadow_hits", "would_save_usd", "prompt_saved_usd", "prompt_extra_usd")
NUMBERS = ("requests", "refused", "errors", *TOKENS, "cost", "unpriced", *KEPT)
WHO = {"ada": "platform", "ci-bot": "platform", "maps": "search", "research": "lab"}
WHERE = {
    "assistant": ("openai", "gpt-4o"),
    "claude-sonnet-4-5": ("anthropic", "claude-sonnet-4-5"),
    "small": ("groq", "llama"),
}


def exchange(number: int, time: float, **more) -> dict:
    return {
        "time": time,
        "id": f"id-{number}",
        "request_id": f"r-{number}",
        "operation": "chat",
        "status": 200,
        "error": "",
        "outcome": "ok",
        "consumer": "ada",
        "team": "platform",
        "labels": {},
        "model": "assistant",
        "provider": "openai",
        "provider_model": "gpt-4o",
        "duration_ms": 812.4,
        "attempts": 1,
        **dict.fromkeys(TOKENS, 0),
        "cost_usd": "0",
    } | more


def some(now: float, count: int = 600, seed: int = 5) -> Iterator[dict]:
    """Exchanges of the last week, oldest first."""
    chance = random.Random(seed)
    for number, ago in enumerate(sorted((chance.random() ** 1.6 * 6.5 * 86400 for _ in range(count)), reverse=True)):
        consumer = chance.choices(list(WHO), [5, 3, 2, 1])[0]
        model = chance.choices(list(WHERE), [5, 3, 2])[0]
        more = {
            "consumer": consumer,
            "team": WHO[consumer],
            "labels": {"agent": chance.choice(["reviewer", "planner", "triage"])},
            "model": model,
            "duration_ms": chance.expovariate(1 / 900),
        }
        fate = chance.random()
        if fate < 0.05:
            error, status = chance.choice([("budget_exceeded", 402), ("rate_limited", 429), ("guardrail_blocked", 400)])
            more |= {"error": error, "status": status, "outcome": "refused", "attempts": 0}
            yield exchange(number, now - ago, **more, provider="", provider_model="")
            continue
        if fate < 0.07:
            more |= {"error": "no_provider_available", "status": 503, "outcome": "error"}
        provider, provider_model = WHERE[model]
        input_ = chance.randrange(200, 9000)
        tokens = {"input_tokens": input_, "output_tokens": chance.randrange(20, 900), "cached_tokens": input_ // 3}
        cost = Decimal(tokens["input_tokens"] * 2500 + tokens["output_tokens"] * 10000) / 10**9
        more |= {"provider": provider, "provider_model": provider_model, "cost_usd": f"{cost:f}"}
        yield exchange(number, now - ago, **more, **tokens)


QUESTION = {
    "id": "5c1f0a",
    "budget": "team-month",
    "scope": "team-month:team=search",
    "fields": {"team": "search"},
    "unit": "usd",
    "amount": "2.50",
    "consumer": "ada",
    "team": "search",
    "key": "laptop",
    "labels": {"run": "nightly"},
    "operation": "chat",
    "model": "gpt-4o",
    "call": None,
    "state": "open",
    "asked_at": "2026-11-18T10:00:00Z",
    "expires_at": "2026-11-18T11:00:00Z",
    "decided_by": "",
    "reason": "",
}


class FakeSources:
    """The sources of a gateway whose ledger holds `entries`."""

    def __init__(self, entries=(), now: float = 1_795_000_000.0) -> None:
        self.entries = list(entries)
        self.now = datetime.fromtimestamp(now, UTC)
        self.asked: list = []
        self.given: list[dict] = []
        self.open = {"5c1f0a": dict(QUESTION)}
        self.servers = []
        self.places = {
            "openai/gpt-4o": {"plain_s": 1.2, "streamed_first_byte_s": 0.31, "failing": 0.002},
            "anthropic/claude-sonnet-4-5": {"streamed_first_byte_s": 0.44, "failing": 0.08},
            "groq/llama": {"cooling_down_s": 12.0, "plain_s": 0.2, "failing": 0.6},
        }
        self.scopes = [
            ("platform", "455.25", "8.5", "0"),
            ("search", "500", "0", "25"),
            ("sales", "499.999", "0.001", "0"),
            ("lab", "1.5", "0.2", "0"),
        ]
        self.budgetless = False

    def usage(self, parameters):
        self.asked.append(list(parameters))
        given: dict[str, list[str]] = {}
        for name, value in parameters:
            given.setdefault(name, []).append(value)
        fields = [name for name in given.pop("group_by", [""])[-1].split(",") if name]
        resolution = given.pop("resolution", ["total"])[-1]
        if resolution not in ("minute", "hour", "day", "month", "total"):
            raise ValueError("resolution is minute, hour, day, month or total")
        start = self._time(given.pop("start", []), self.now.replace(day=1, hour=0, minute=0, second=0, microsecond=0))
        end = self._time(given.pop("end", []), self.now + timedelta(days=1))
        if any(not value.isdecimal() or len(value) > 3 for value in given.get("status", ())):
            raise ValueError("status must be a number of up to three digits")
        if not set(given.get("stream", ())) <= {"true", "false"}:
            raise ValueError("stream must be true or false")
        if not set(given.get("outcome", ())) <= set(OUTCOMES):
            raise ValueError(f"outcome must be one of {', '.join(OUTCOMES)}")
        for name in (*fields, *given):
            if name not in FIELDS and not (name.startswith("label.") and len(name) > 6):
                raise ValueError(f"there is no field {name!r}")
        rows: dict[tuple, dict] = {}
        total = dict.fromkeys(NUMBERS, 0)
        for entry in self.entries:
            at = datetime.fromtimestamp(entry["time"], UTC)
            if not start <= at < end or any(self._value(entry, name) not in wanted for name, wanted in given.items()):
                continue
            first, last = self._bucket(at, resolution, start, end)
            group = tuple(self._value(entry, name) for name in fields)
            row = rows.setdefault((first, last, group), dict.fromkeys(NUMBERS, 0))
            for numbers in (row, total):
                numbers["requests"] += 1
                numbers["refused"] += entry["outcome"] == "refused"
                numbers["errors"] += entry["outcome"] == "error"
                for name in TOKENS:
                    numbers[name] += entry[name]
                numbers["cost"] += Decimal(entry["cost_usd"])
                for name in ("shadow_hits", "would_save_usd"):
                    numbers[name] += entry.get(name, 0)
        return {
            "object": "usage",
            "start": _text(start),
            "end": _text(end),
            "resolution": resolution,
            "group_by": fields,
            "data": [
                {"start": _text(a), "end": _text(b), "group": dict(zip(fields, group, strict=True)), **_told(numbers)}
                for (a, b, group), numbers in sorted(rows.items(), key=str)
            ],
            "total": _told(total),
            "truncated": False,
            "capacity": {},
        }

    def _time(self, given, default):
        if not given:
            return default
        found = datetime.fromisoformat(given[-1])  # its ValueError becomes the message
        return found if found.tzinfo else found.replace(tzinfo=UTC)

    def _value(self, entry, name):
        return entry["labels"].get(name[6:], "") if name.startswith("label.") else str(entry.get(name, ""))

    def _bucket(self, at, resolution, start, end):
        if resolution == "total":
            return start, end
        minute = at.replace(second=0, microsecond=0)
        if resolution == "minute":
            return minute, minute + timedelta(minutes=1)
        hour = minute.replace(minute=0)
        if resolution == "hour":
            return hour, hour + timedelta(hours=1)
        day = hour.replace(hour=0)
        if resolution == "day":
            return day, day + timedelta(days=1)
        month = day.replace(day=1)
        return month, (month + timedelta(days=32)).replace(day=1)

    def budgets(self, name):
        if name not in (None, "team-month", "per-minute", "try-out"):
            raise ReportError(404, "there is no budget of that name")
        if self.budgetless:
            return {"object": "list", "data": []}
        usd = {"unit": "usd", "window": "month", "limit": "500", "mode": "enforce", "on_exceed": "refuse"}
        scopes = [
            {
                "scope": f"team-month:team={team}",
                "fields": {"team": team},
                "settled": settled,
                "reserved": reserved,
                "granted": granted,
                "remaining": f"{500 + Decimal(granted) - Decimal(settled) - Decimal(reserved):f}",
                "used": float(Decimal(settled) / 500),
            }
            for team, settled, reserved, granted in self.scopes
        ]
        rate = {"unit": "requests", "window": "minute", "limit": "60", "mode": "enforce", "on_exceed": "refuse"}
        shadow = {"unit": "tokens", "window": "hour", "limit": "100000", "mode": "shadow", "on_exceed": "refuse"}
        numbers = {"settled": "104200", "reserved": "0", "granted": "0", "remaining": "0", "used": 1.042}
        data = [
            {"name": "team-month", **usd, "resets_at": "2026-12-01T00:00:00Z", "alert_at": [0.9], "scopes": scopes},
            {"name": "per-minute", **rate, "resets_at": "2026-11-21T10:42:00Z", "scopes": []},
            {
                "name": "try-out",
                **shadow,
                "resets_at": None,
                "scopes": [{"scope": "try-out:label.agent=triage", "fields": {"label.agent": "triage"}, **numbers}],
            },
        ]
        return {"object": "list", "data": [budget for budget in data if name in (None, budget["name"])]}

    def exchanges(self, parameters):
        query = ExchangeQuery.parse(parameters)
        ids = [entry["id"] for entry in self.entries]
        earlier = self.entries[: ids.index(query.before)] if query.before in ids else self.entries
        return [entry for entry in earlier if matches(entry, query)][-query.limit :][::-1]

    def latency(self, parameters):
        report = self.usage(parameters)
        times = {"p50_ms": 800.0, "p95_ms": 2400.0, "first_p50_ms": 210.0, "first_p95_ms": None}
        told = ("object", "start", "end", "resolution", "group_by", "truncated")
        data = [
            {name: row[name] for name in ("start", "end", "group")} | {"answers": row["requests"]} | times
            for row in report["data"]
        ]
        return {name: report[name] for name in told} | {"object": "latency", "data": data}

    def findings(self, parameters):
        self.usage(parameters)
        return [{"finding": "no-keys: block", "exchanges": 3, "latest": "2026-11-18T00:00:00Z"}]

    def under_way(self):
        hold = {"budget": "team-month", "scope": "team-month:team=platform", "unit": "usd", "amount": "8.5"}
        return [
            {
                "id": "u-1",
                "request_id": "r-u",
                "seconds": 75.5,
                "state": "waiting",
                "holds": [hold],
                "consumer": "ada",
                "team": "platform",
                "model": "assistant",
            }
        ]

    def runs(self, consumer, hours):
        return self.run("night", consumer)

    def run(self, id, consumer):
        if id != "night":
            return []
        numbers = {**dict.fromkeys(("requests", "refused", "errors", *TOKENS, "unpriced"), 1), "cost_usd": "0.5"}
        numbers |= dict.fromkeys(("cache_hits", "shadow_hits"), 0) | {"cache_share": 0.25}
        numbers |= {name: "0" for name in KEPT if name.endswith("_usd")}
        call = {"operation": "chat", "model": "assistant", "target": "gpt-4o", "provider": "openai"}
        problem = {"error": "run_looping", "outcome": "refused", "requests": 1, "latest": "2026-11-18T00:00:01Z"}
        times = {"start": "2026-11-18T00:00:00Z", "latest": "2026-11-18T00:00:01Z"}
        who = {"id": id, "consumer": consumer or "ada", "team": "platform", **times}
        return [{**who, **numbers, "calls": [{**call, "provider_model": "m", **numbers}], "problems": [problem]}]

    def compare(self, a, b, begin, *, label=None, model=None, pairs=None):
        ledger = open_ledger("memory:")
        common = {"time": self.now.timestamp() - 60, "operation": "chat", "model": model or "assistant"}
        for number in range(800):
            failed = {"outcome": "error"} if number % 20 == 0 else {}
            ledger.writer.add(Row(id=str(number), target=a if number % 2 else b, **failed, **common))
        ledger.writer.start()
        ledger.writer.stop()
        start = self.now - timedelta(hours=begin) if isinstance(begin, int) else instant("start", begin)
        found = ledger.compare(CompareQuery(a, b, start, self.now, label))
        ledger.close()
        return found

    def exchange(self, id):
        return next((entry for entry in self.entries if id in (entry["id"], entry["request_id"])), None)

    def tools(self, *, definitions):
        return list(self.servers)

    def certificate(self):
        return ""

    def stores(self):
        return {"counters": {"problem": "", "remark": ""}, "ledger": {"problem": "disk full", "remark": ""}}

    def stale(self):
        return "changes of stores bind at a restart"

    def providers(self):
        return self.places

    def grants(self):
        return list(self.given)

    def grant(self, body):
        assert isinstance(body["amount"], Decimal)
        if not body["scope"].startswith("team-month"):
            raise ReportError(404, "there is no such budget")
        given = {
            "id": f"g-{len(self.given) + 1}",
            "budget": body["budget"],
            "scope": body["scope"],
            "amount": f"{body['amount']:f}",
            "expires_at": "2026-12-01T00:00:00Z",
        }
        self.given.append(given)
        return given

    def end_sign_in(self, **named):
        self.asked.append(named)

    def reset(self, name, scope):
        if not scope.startswith(name):
            raise ReportError(404, "that is no count of this budget")
        return {"budget": name, "scope": scope, "settled": "41.50"}

    def questions(self):
        return list(self.open.values())

    def decide(self, id, *, approve, by, reason):
        if id not in self.open:
            raise ReportError(404, "no open question has that id")
        if self.open[id]["state"] != "open":
            raise ReportError(409, f"the question was {self.open[id]['state']} already")
        self.open[id] |= {"state": "approved" if approve else "denied", "decided_by": by, "reason": reason}
        return self.open[id]

    def cache(self):
        return {"entries": 3, "bytes": 4096, "limit": 1 << 20, "waiting": 0, "failures": 0} | VECTORS

    def similar(self):
        return [SAMPLE]

    def forget(self, consumer):
        return 1 if consumer == "ada" else 3 if consumer is None else 0

    def forget_consumer(self, consumer, *, delete):
        before = len(self.entries)
        self.entries = [entry for entry in self.entries if entry["consumer"] != consumer]
        return {"rows": before - len(self.entries), "answers": int(delete)}

    def export(self, consumer, before, limit):
        found = self.exchanges([("consumer", consumer), ("limit", "1000")])
        ids = [entry["id"] for entry in found]
        return found[ids.index(before) + 1 if before in ids else 0 :][:limit]

    def rebuild(self):
        self.asked.append("rebuild")

    def revoke(self, id):
        before = len(self.given)
        self.given = [grant for grant in self.given if grant["id"] != id]
        return len(self.given) < before


def acts_of(entries):
    """Name, role, action and facts of acts in the audit trail."""
    acts = [entry["event"] for entry in entries]
    return [(*_who(act), act["event"]["action"], act["extproc"]["detail"]) for act in acts]


def _who(act):
    return act["user"]["name"], act["user"]["roles"][0]


class FakeChecks:
    """Settings with the word `broken` do not load."""

    def __init__(self):
        self.file = Path(tempfile.mkdtemp()) / "gateway.yaml"
        self.file.write_text(SETTINGS)

    def judge(self, text):
        return "broken" not in text, ["gateway.yaml: ok <b>"] if "broken" not in text else ["gateway.yaml:1:1: broken"]

    def ask_providers(self):
        return False, ["openai: 200 in 5 ms", "claude: 401 <b>"]


SETTINGS = """\
models:
  small: {provider: groq}
budgets:
  - {name: team-month, limit: 500}   # agreed <b>
consumers:
  - {name: ada, keys: [{env: ADA}]}
"""


class FakeDesk:
    """Two consumers, whose keys and acts are lists."""

    def __init__(self):
        self.may_apply = True
        self.file = SettingsFile(FakeChecks(), lambda: self.may_apply)
        self.issued: list[dict] = []
        self.port = 10000
        self.acts: list[dict] = []
        self.ended: set[str] = set()

    def end_session(self, id, until):
        self.ended.add(id)

    def has_ended(self, id, begun):
        return id in self.ended

    def keys(self):
        numbers = {"origin": "settings", "created": None, "created_by": "", "expires_at": None}
        return [{"id": "", "consumer": "ada", "name": "0", "state": "active", **numbers}, *self.issued]

    def issue(self, consumer, name, expires_in, actor):
        if consumer not in WHO:
            raise ReportError(404, "there is no such consumer")
        made = {
            "id": f"k-{len(self.issued)}",
            "origin": "console",
            "consumer": consumer,
            "name": name,
            "ending": "cret",
            "state": "active",
            "created": "2026-11-20T00:00:00Z",
            "created_by": actor,
            "expires_at": None if expires_in is None else "2026-12-01T00:00:00Z",
        }
        self.issued.append(made)
        return {**made, "key": "sk-gw-secret"}

    def revoke_key(self, id):
        for number, key in enumerate(self.issued):
            if key["id"] == id and key["state"] == "active":
                self.issued[number] = {**key, "state": "revoked"}
                return True
        return False

    def models(self, consumer):
        rates = {"input": 2.5, "cached_input": 1.25, "output": 10.0}
        there = {"context": 128_000, "output_limit": None, "usd_per_million": rates, "price_version": "settings"}
        return [
            {
                "name": name,
                "strategy": "fallback" if name == "assistant" else "",
                "consumers": 4 if consumer is None else 1,
                "targets": [{"name": name, "provider": provider, "model": model, "unavailable": "", **there}],
            }
            for name, (provider, model) in WHERE.items()
        ]

    def door(self):
        return {"port": self.port, "tls": False, "model": "assistant"}

    def trace_link(self):
        return "https://traces.example.com/search?q={id}&all"

    def play(self, key, body, sink=None):
        if key != "sk-gw-good":
            return {"status": 401, "ms": 1, "headers": {}, "content": '{"error": {"message": "no"}}', "cut": False}
        text = f"Hello <b>{json.loads(body).get('messages', [{'content': ''}])[0]['content']}"
        if sink is not None:
            told = [{"choices": [{"delta": {"content": part}}]} for part in (text[:3], text[3:])]
            whole = b"".join(b"data: %b\n\n" % json.dumps(chunk, ensure_ascii=False).encode() for chunk in told)
            for at in range(0, len(whole), 7):  # ends inside events and characters
                sink(whole[at : at + 7])
            return {"status": 200, "ms": 5, "headers": {"x-request-id": "r-1"}, "content": "", "cut": False}
        told = {"choices": [{"message": {"content": text}}]}
        return {"status": 200, "ms": 5, "headers": {"x-request-id": "r-1"}, "content": json.dumps(told), "cut": False}

    def explain(self, model, consumer, *, path="", labels=None, body=b""):
        if consumer not in WHO:
            raise ReportError(404, f"there is no consumer {consumer!r}")
        return {"lines": [f"request   {model}", f"consumer  {consumer} <b>"], "forwarded": not body}

    def texts(self, id):
        if not id.endswith("7"):
            raise ReportError(404, "no text of this exchange is recorded")
        request = '{"messages": [{"role": "user", "content": "Hello <b>"}]}'
        told = {
            "recorded_at": "2026-11-20T00:00:00Z",
            "consumer": "ada",
            "cut": False,
            "withheld": False,
            "path": "/v1/chat/completions",
        }
        return {"id": id, "request": request, "answer": "data: {}\n\n", **told}

    def record(self, actor, role, action, detail):
        made = act(actor, role, action, detail, 1_795_000_000.0).fields
        self.acts.append({"number": len(self.acts) + 1, "hash": "0" * 64, "event": made})

    def trail(self, limit, before):
        return self.acts[: None if before is None else before - 1][::-1][:limit]


def _text(time):
    return time.astimezone(UTC).replace(tzinfo=None).isoformat() + "Z"


def _told(numbers):
    numbers = {**numbers, "cost": Decimal(numbers["cost"])}
    found = {**numbers, "cost_usd": f"{numbers['cost'].normalize():f}"}
    found |= {name: str(found[name]) for name in KEPT if name.endswith("usd")}
    del found["cost"]
    return found

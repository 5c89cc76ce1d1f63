"""The targets of a request: from its model's name, through grants, to the order of the tries."""

import json
from collections import Counter

import pytest

from extproc.access.auth import Authorize
from extproc.dialects import by_path
from extproc.routing.catalog import Catalog, Route
from extproc.routing.history import History
from extproc.routing.selection import Select
from extproc.words.errors import FOREIGN_OBJECT, OBJECT_NOT_FOUND, Refusal
from extproc.words.exchange import Consumer
from extproc.words.values import Patterns
from tests.talk import asks, sends, talk

PROVIDERS = """
providers:
  a: {kind: mock}
  b: {kind: mock, base_url: 'http://127.0.0.1:8090/v1'}
  c: {kind: mock, base_url: 'http://127.0.0.1:8091/v1'}
  off: {kind: mock, disabled: true}
  keyless: {kind: openai, api_key: env:UNSET_FOR_SURE}
models:
  m: {provider: a}
  n: {provider: b}
  o: {provider: c}
  renamed: {provider: b, model: vendor/other}
  off: {provider: off}
  stopped: {provider: a, model: x, disabled: true}
  keyless: {provider: keyless}
  plain: {provider: a, supports: []}
  tools: {provider: b, supports: [tools]}
  seeing: {provider: c, supports: [images, tools]}
  small: {provider: a, context: 100}
  large: {provider: b, context: 100000}
  "a/*": {provider: a}
"""


class Gateway:
    """Route, Authorize and Select over one configuration."""

    def __init__(self, settings, clock, text):
        found = settings(PROVIDERS + text)
        self.clock = clock
        self.history = History(clock)
        self.catalog = Catalog(found.providers, found.models, found.virtual_models, self.history)
        self.counted = Counter()

        def count(reason):
            self.counted[reason] += 1

        self.stages = [Route(self.catalog), Authorize(), Select(self.catalog, self.history, count)]

    def select(self, sent):
        for stage in self.stages:
            stage(sent)
        return [target.name for target in sent.route.targets]


@pytest.fixture
def gateway(settings, clocks):
    return lambda text="": Gateway(settings, clocks(), text)


def virtual(*targets, **fields):
    """A virtual model `v` with these targets, written as in YAML."""
    rest = "".join(f", {name}: {value}" for name, value in fields.items())
    listed = ", ".join(target if target.startswith("{") else f"{{model: {target}}}" for target in targets)
    return f"virtual_models:\n  v: {{targets: [{listed}]{rest}}}\n"


def question(text="Hello", model="v", **fields):
    return {"model": model, "messages": [{"role": "user", "content": text}]} | fields


WITH_TOOLS = question(tools=[{"type": "function", "function": {"name": "f"}}])
WITH_IMAGE = question([{"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 10_000}}])


def skipped(sent):
    return {skip.target.name: skip.reason for skip in sent.route.skipped}


def refusal(gateway, sent):
    with pytest.raises(Refusal) as refused:
        gateway.select(sent)
    return refused.value


def may_use(*patterns):
    return Consumer("alice", "red", may_use=Patterns(patterns))


# --- abilities of targets


@pytest.mark.parametrize(
    ("target", "body", "reason"),
    [
        ("off", question(), "disabled"),
        ("stopped", question(), "disabled"),
        ("{model: m, disabled: true}", question(), "disabled"),
        ("keyless", question(), "no_key"),
        ("{model: m, match: {team: blue}}", question(), "no_match"),
        ("{model: m, match: {consumer: 'b*'}}", question(), "no_match"),
        ("{model: m, match: {label.tier: gold}}", question(), "no_match"),
        ("{model: m, match: {team: red, label.tier: gold}}", question(), "no_match"),
        ("plain", WITH_TOOLS, "ability"),
        ("tools", WITH_IMAGE, "ability"),
        ("small", question("x" * 500), "context"),
    ],
)
def test_a_target_without_the_ability_is_skipped(gateway, exchange, target, body, reason):
    world, sent = gateway(virtual(target, "o")), exchange(body)
    assert world.select(sent) == ["o"]
    assert list(skipped(sent).values()) == [reason]
    assert world.counted == {reason: 1}


@pytest.mark.parametrize(
    ("target", "body", "labels"),
    [
        ("{model: m, match: {team: red}}", question(), {}),
        ("{model: m, match: {team: '*'}}", question(), {}),
        ("{model: m, match: {consumer: al*, label.tier: gold}}", question(), {"tier": "gold"}),
        ("plain", question(), {}),
        ("tools", WITH_TOOLS, {}),
        ("seeing", WITH_IMAGE, {}),
        ("m", WITH_IMAGE | WITH_TOOLS, {}),  # its abilities are not stated
        ("{model: plain, remove: [tools]}", WITH_TOOLS, {}),
        ("{model: plain, override: {tools: null}}", WITH_TOOLS, {}),
        ("small", question("x" * 300), {}),
        ("{model: small, default: {seed: 1}}", WITH_IMAGE, {}),  # an image is not counted by its bytes
    ],
)
def test_a_target_with_the_ability_is_kept(gateway, exchange, target, body, labels):
    world, sent = gateway(virtual(target, "o")), exchange(body, labels=labels)
    assert world.select(sent)[1:] == ["o"]
    assert sent.route.skipped == []


def test_a_target_whose_provider_lacks_the_api_is_skipped(gateway, exchange, monkeypatch):
    monkeypatch.setattr(Catalog, "api", lambda _, target, client: None if target.provider == "a" else client.name)
    world, sent = gateway(virtual("m", "n")), exchange(question())
    assert world.select(sent) == ["n"]
    assert skipped(sent) == {"m": "dialect"}
    refused = refusal(world, exchange(question(model="m")))
    assert (refused.kind.status, refused.kind.code) == (400, "unsupported_by_targets")
    assert "/v1/chat/completions" in refused.message


PDF = "data:application/pdf;base64,JVBERi0" + "A" * 5000
PACKED = [
    ("/v1/chat/completions", question([{"type": "file", "file": {"file_data": PDF}}])),
    ("/v1/chat/completions", question([{"type": "input_audio", "input_audio": {"data": "A" * 5000, "format": "mp3"}}])),
    ("/v1/responses", {"input": [{"role": "user", "content": [{"type": "input_file", "file_data": PDF}]}]}),
    (
        "/v1/messages",
        question([{"type": "document", "source": {"type": "base64", "data": PDF}}], max_tokens=9),
    ),
    ("/v1/embeddings", {"input": ["x" * 300] * 20}),
]


@pytest.mark.parametrize(("path", "body"), PACKED)
def test_packed_files_and_batches_are_not_weighed_as_text(gateway, exchange, path, body):
    """A PDF of 3 MB may have ten pages. Each input of a batch has the model's context for itself."""
    sent = exchange(body | {"model": "v"}, path=path)
    assert gateway(virtual("{model: small}")).select(sent) == ["small"]


def test_the_longest_input_of_a_batch_has_to_fit(gateway, exchange):
    sent = exchange({"model": "v", "input": ["x", "x" * 500]}, path="/v1/embeddings")
    with pytest.raises(Refusal):
        gateway(virtual("{model: small}")).select(sent)


def test_of_several_reasons_the_first_is_reported(gateway, exchange):
    """The reason "disabled" is reported only of a target that could serve."""
    target = "{model: plain, disabled: true, match: {team: blue}}"
    sent = exchange(WITH_TOOLS)
    assert gateway(virtual(target, "{model: plain, match: {team: blue}}", "o")).select(sent) == ["o"]
    assert [skip.reason for skip in sent.route.skipped] == ["no_match", "no_match"]


@pytest.mark.parametrize(
    ("targets", "body", "status", "param", "said"),
    [
        (["off", "stopped"], question(), 503, None, "provider off: it is disabled"),
        (["keyless"], question(), 503, None, "env:UNSET_FOR_SURE is not set"),
        (["plain", "off"], WITH_TOOLS, 503, None, "it is disabled"),
        (["plain"], WITH_TOOLS, 400, "tools", "does not support tools"),
        (["plain"], question(functions=[{"name": "f"}]), 400, "functions", "does not support tools"),
        (["plain", "tools"], WITH_IMAGE, 400, "messages", "does not support images"),
        (["small"], question("x" * 5000), 400, "model", "do not fit into its context of 100"),
        (["{model: m, match: {team: blue}}"], question(), 400, "model", "it is not for team 'red'"),
    ],
)
def test_a_refusal_without_targets_states_the_reasons(gateway, exchange, *, targets, body, status, param, said):
    world = gateway(virtual(*targets))
    refused = refusal(world, exchange(body))
    code = "no_provider_available" if status == 503 else "unsupported_by_targets"
    assert (refused.kind.status, refused.kind.code, refused.param) == (status, code, param)
    assert said in refused.message
    assert world.counted.total() == len(targets)


def test_a_refusal_is_short_however_many_reasons_there_are(gateway, exchange):
    targets = [f"{{model: plain, match: {{label.x: {'y' * 200}}}}}"] * 16
    assert len(refusal(gateway(virtual(*targets)), exchange(labels={"x": "z" * 256}, body=question())).message) <= 1000


def test_a_single_model_is_judged_like_one_of_several(gateway, exchange):
    world = gateway()
    assert world.select(exchange(question(model="m"))) == ["m"]
    assert refusal(world, exchange(question(model="off"))).kind.status == 503
    assert refusal(world, exchange(WITH_TOOLS | {"model": "plain"})).kind.status == 400


# --- grants


@pytest.mark.parametrize(
    ("granted", "targets"),
    [
        (["v", "m", "n"], ["m", "n"]),
        (["v", "n"], ["n"]),
        (["*"], ["m", "n", "renamed", "a/x"]),
        (["v", "a/*"], ["a/x"]),
        (["v", "renamed"], ["renamed"]),
    ],
)
def test_a_virtual_model_leads_to_the_targets_the_consumer_is_granted(gateway, exchange, granted, targets):
    world = gateway(virtual("m", "n", "b/vendor/other", "a/x", retry="{attempts: 16}"))
    sent = exchange(question(), consumer=may_use(*granted))
    assert world.select(sent) == targets
    assert set(skipped(sent).values()) <= {"not_granted"}
    assert world.counted["not_granted"] == 4 - len(targets)


@pytest.mark.parametrize(
    ("model", "granted", "status"),
    [
        ("v", ["m", "n"], 403),  # the virtual model itself is not granted
        ("v", ["v"], 403),  # no target behind it is granted
        ("v", ["v", "m"], None),
        ("w", ["w", "m"], None),  # inner virtual models need no grant of their own
        ("w", ["v", "m"], 403),
        ("b/vendor/other", ["renamed"], None),  # granted under the entry's name
        ("b/vendor/other", ["b/vendor/other"], 403),
        ("a/x", ["a/*"], None),
        ("a/x", ["m"], 403),
    ],
)
def test_a_model_without_a_grant_is_a_403(gateway, exchange, model, granted, status):
    world = gateway(virtual("m", "n") + "  w: {targets: [{model: v}]}\n")
    sent = exchange(question(model=model), consumer=may_use(*granted))
    if status is None:
        assert world.select(sent)
    else:
        refused = refusal(world, sent)
        assert (refused.kind.status, refused.kind.code, refused.param) == (403, "model_not_allowed", "model")


def test_a_granted_model_that_is_disabled_is_a_503(gateway, exchange):
    sent = exchange(question(), consumer=may_use("v", "off"))
    assert refusal(gateway(virtual("off", "m")), sent).kind.status == 503


# --- cool-downs


def test_a_target_that_cools_down_is_skipped_while_others_are_left(gateway, exchange):
    world, sent = gateway(virtual("m", "n")), exchange(question())
    world.history.cool("a/m", 30)
    assert world.select(sent) == ["n"]
    assert skipped(sent) == {"m": "cooling_down"}
    assert "30 s" in sent.route.skipped[0].text
    world.clock.now += 30
    assert world.select(exchange(question())) == ["m", "n"]


def test_when_all_targets_cool_down_all_are_asked(gateway, exchange):
    world, sent = gateway(virtual("m", "n")), exchange(question())
    world.history.cool("a/m", 30)
    world.history.cool("b/n", 30)
    assert world.select(sent) == ["m", "n"]
    assert sent.route.skipped == []


def test_a_cooling_target_is_better_than_one_that_cannot_serve(gateway, exchange):
    world = gateway(virtual("seeing", "plain", "off"))
    world.history.cool("c/seeing", 30)
    assert world.select(exchange(WITH_TOOLS)) == ["seeing"]


def test_a_single_model_is_asked_even_while_it_cools_down(gateway, exchange):
    world = gateway()
    world.history.cool("a/m", 30)
    assert world.select(exchange(question(model="m"))) == ["m"]


def test_a_deployment_cools_down_under_all_its_names(gateway, exchange):
    world = gateway(virtual("a/m", "{model: m, override: {seed: 1}}", "n"))
    world.history.cool("a/m", 30)
    assert world.select(exchange(question())) == ["n"]


# --- the order


def test_by_default_the_order_is_that_of_the_settings(gateway, exchange):
    assert gateway(virtual("o", "m", "n")).select(exchange(question())) == ["o", "m", "n"]


NESTED = """
virtual_models:
  v: {strategy: weighted, targets: [{model: cheap, weight: 1}, {model: good, weight: 0}], retry: {attempts: 16}}
  cheap: {strategy: cost, targets: [{model: dear}, {model: unpriced}, {model: free}]}
  good: {targets: [{model: n}, {model: cheap, disabled: true}, {model: o}]}
"""
PRICED = PROVIDERS.replace(
    "models:\n",
    """models:
  free: {provider: a, price: {input: 0, output: 0}}
  dear: {provider: b, price: {input: 9, output: 9}}
  unpriced: {provider: c}
""",
)


@pytest.fixture
def nested(settings, clocks, monkeypatch):
    monkeypatch.setattr(f"{__name__}.PROVIDERS", PRICED)
    return Gateway(settings, clocks(), NESTED)


def test_each_virtual_model_orders_its_own_targets(nested, exchange):
    for _ in range(20):
        assert nested.select(exchange(question())) == ["free", "dear", "unpriced", "n", "o"]


def test_a_strategy_sees_only_targets_that_can_serve(nested, exchange):
    nested.history.cool("a/free", 30)
    assert nested.select(exchange(question())) == ["dear", "unpriced", "n", "o"]
    assert nested.select(exchange(question(), consumer=may_use("v", "o", "dear"))) == ["dear", "o"]


def test_a_branch_without_targets_is_not_a_choice(nested, exchange):
    assert nested.select(exchange(question(), consumer=may_use("v", "n", "o"))) == ["n", "o"]


def test_a_target_reached_in_several_ways_is_tried_once_at_its_first_place(gateway, exchange):
    world = gateway(virtual("w", "n", "m", "w", retry="{attempts: 16}") + "  w: {targets: [{model: o}, {model: n}]}\n")
    assert world.select(exchange(question())) == ["o", "n", "m"]


def test_a_target_with_other_changes_is_another_target(gateway, exchange):
    world = gateway(virtual("m", "{model: m, override: {seed: 1}}", "m", "{model: m, override: {seed: 2}}"))
    sent = exchange(question())
    assert world.select(sent) == ["m", "m", "m"]
    assert [target.changes for target in sent.route.targets] == [(), (("seed", "set", 1),), (("seed", "set", 2),)]


# --- number of tries


@pytest.mark.parametrize(
    ("targets", "attempts", "tries"),
    [
        (["m", "n", "o"], 3, "mno"),
        (["m", "n", "o"], 2, "mn"),
        (["m", "n", "o"], 1, "m"),
        (["m", "n"], 16, "mn"),
        (["{model: m, tries: 2}", "n"], 3, "mmn"),
        (["{model: m, tries: 3}", "{model: n, tries: 2}"], 16, "mmmnn"),
        (["{model: m, tries: 3}", "n"], 2, "mm"),
        (["{model: m, tries: 5}"], 3, "mmm"),
    ],
)
def test_tries_are_limited_for_each_target_and_for_the_whole_request(gateway, exchange, targets, attempts, tries):
    world = gateway(virtual(*targets, retry=f"{{attempts: {attempts}}}"))
    assert world.select(exchange(question())) == list(tries)


def test_a_skipped_target_makes_room_for_a_further_one(gateway, exchange):
    world = gateway(virtual("off", "{model: m, disabled: true}", "n", "o", retry="{attempts: 2}"))
    assert world.select(exchange(question())) == ["n", "o"]


def test_the_outermost_virtual_model_limits_the_tries(gateway, exchange):
    inner = "  w: {targets: [{model: m, tries: 2}, {model: n}], retry: {attempts: 1}}\n"
    world = gateway(virtual("w", "o", retry="{attempts: 4}") + inner)
    assert world.select(exchange(question())) == ["m", "m", "n", "o"]
    assert world.select(exchange(question(model="w"))) == ["m"]


# --- attach mode


def attached(exchange, body):
    sent = exchange(body)
    sent.attached = True
    return sent


def test_an_attached_envoy_decides_the_number_of_tries(gateway, exchange):
    world = gateway(virtual("{model: m, tries: 3}", "n", "o", retry="{attempts: 1}"))
    assert world.select(attached(exchange, question())) == ["m", "n", "o"]


def test_an_attached_envoy_needs_no_key_in_the_settings(gateway, exchange):
    world = gateway(virtual("keyless", "off", "m"))
    assert world.select(attached(exchange, question())) == ["keyless", "m"]


def test_a_request_that_refers_to_a_providers_state_goes_to_one_provider(settings, clocks, exchange, monkeypatch):
    text = """
providers: {a: {kind: openai, base_url: 'http://a/v1'}, b: {kind: openai, base_url: 'http://b/v1'}, c: {kind: mock}}
models: {m: {provider: a}, n: {provider: b}, o: {provider: c}}
"""
    monkeypatch.setitem(globals(), "PROVIDERS", text)
    world = Gateway(settings, clocks(), virtual("o", "m", "n", strategy="weighted"))
    for number in range(9):
        sent = exchange(
            {"model": "v", "input": "And now", "previous_response_id": f"resp_{number}"}, path="/v1/responses"
        )
        assert world.select(sent) == ["m"]
        assert skipped(sent) == {"o": "dialect"}


# --- tools that only the provider of the client's API runs

HOSTED = """
providers:
  own: {kind: openai, base_url: 'http://a/v1'}
  strict: {kind: anthropic, base_url: 'http://b/v1'}
  lenient: {kind: anthropic, base_url: 'http://c/v1', hosted_tools: drop}
models: {m: {provider: own}, n: {provider: strict}, o: {provider: lenient}}
"""


@pytest.fixture
def hosted(settings, clocks, monkeypatch):
    monkeypatch.setitem(globals(), "PROVIDERS", HOSTED)
    return lambda text: Gateway(settings, clocks(), text)


SEARCH = {"tools": [{"type": "web_search"}]}


@pytest.mark.parametrize(
    ("text", "fields", "left"),
    [
        (virtual("m", "n", "o"), {}, ["m", "n", "o"]),
        (virtual("m", "n", "o"), SEARCH, ["m", "o"]),
        (virtual("m", "n", "o", hosted_tools="drop"), SEARCH, ["m", "n", "o"]),
        (virtual("m", "n", "o", hosted_tools="refuse"), SEARCH, ["m"]),
        (virtual("m", "o"), SEARCH | {"tool_choice": {"type": "web_search"}}, ["m"]),
        (virtual("m", "o"), SEARCH | {"previous_response_id": "resp_1"}, ["m"]),
    ],
)
def test_a_target_may_do_without_hosted_tools_where_it_says_so(hosted, exchange, text, fields, left):
    """Unless one of them has to be called, or the provider keeps something."""
    sent = exchange({"model": "v", "input": "Hi", **fields}, path="/v1/responses")
    assert hosted(text).select(sent) == left


def test_a_refusal_of_hosted_tools_says_what_to_set(hosted, exchange):
    sent = exchange({"model": "n", "input": "Hi", **SEARCH}, path="/v1/responses")
    with pytest.raises(Refusal) as refused:
        hosted("").select(sent)
    assert "`hosted_tools: drop`" in refused.value.message


def test_the_inner_virtual_model_says_what_becomes_of_hosted_tools(hosted, exchange):
    text = """
virtual_models:
  v: {targets: [{model: n}, {model: inner}], hosted_tools: refuse}
  inner: {targets: [{model: n, override: {temperature: 1}}], hosted_tools: drop}
"""
    sent = exchange({"model": "v", "input": "Hi", **SEARCH}, path="/v1/responses")
    assert hosted(text).select(sent) == ["n"]


async def test_a_thread_is_refused_with_the_code_that_sdks_know(world):
    """They send the whole conversation then."""
    gateway = world(HOSTED.partition("models:")[0] + "models: {m: {provider: own}, n: {provider: strict}}")
    body = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]}
    thread = {"thread": {"type": "create"}, "tools": [{"type": "web_search_20250305", "name": "web_search"}]}
    _, answer = await talk(gateway.stream(), asks("/v1/messages"), sends(body | thread))
    error = json.loads(answer.body)["error"]
    assert (answer.status, error["details"]) == (400, {"error_code": "thread_unsupported_request", "param": "thread"})
    _, onward = await talk(gateway.stream(), asks("/v1/messages"), sends(body | thread | {"model": "n"}))
    assert onward.order == ("try-strict",)


@pytest.mark.parametrize("type", ["create", "continue"])
async def test_a_thread_at_several_providers_is_refused_at_once_so_that_failover_stays(world, type):
    text = HOSTED.partition("models:")[0] + "models: {m: {provider: own}, n: {provider: strict}}\n"
    gateway = world(f"{text}virtual_models: {{v: {{targets: [{{model: n}}, {{model: m}}]}}}}")
    body = {"model": "v", "max_tokens": 9, "messages": [{"role": "user", "content": "Hi"}]}
    _, answer = await talk(gateway.stream(), asks("/v1/messages"), sends({**body, "thread": {"type": type}}))
    error = json.loads(answer.body)["error"]
    assert (answer.status, error["details"]["error_code"]) == (400, "thread_unsupported_request")
    _, onward = await talk(gateway.stream(), asks("/v1/messages"), sends(body))
    assert len(onward.order) == 2


@pytest.mark.parametrize("kind", [OBJECT_NOT_FOUND, FOREIGN_OBJECT])
def test_a_thread_that_is_not_the_consumers_is_begun_anew_by_sdks(kind):
    error = by_path()["/v1/messages"].replies.error(kind, "No.", "thread.previous_message_id")
    assert error["error"]["details"]["error_code"] == "thread_not_found"

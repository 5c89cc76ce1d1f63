"""The parts of a change that apply while Envoy, or the process, stays as it is."""

import pytest

from extproc.access.auth import Access, Authorize
from extproc.envoy.envoy_config.dynamic import make
from extproc.routing.catalog import Catalog
from extproc.settings.bound import changes_of_fixed, digest, fixed, held_back, without_envoy
from extproc.settings.config import parse
from extproc.words.dialect import Ask
from extproc.words.errors import Refusal
from tests.exchanges import new_exchange, write

NOW = """
providers:
  a: {kind: mock, base_url: "http://127.0.0.1:1/v1"}
  gone: {kind: mock, base_url: "http://127.0.0.1:2/v1"}
models: {m: {provider: a}, moved: {provider: gone}}
stores: {counters: "memory:"}
"""
NEXT = """
providers:
  a: {kind: mock, base_url: "http://127.0.0.1:9/v1", disabled: true}
  new: {kind: mock, base_url: "http://127.0.0.1:3/v1"}
models: {m: {provider: a, timeout: 3s}, moved: {provider: new}, fresh: {provider: new}}
listener: {port: 1234, max_connections: 7}
auth: {required: false, jwt: [{issuer: i, audiences: [x], jwks: file:/k}]}
attribution: {prefix: x-other-}
telemetry: {access_log: "off", traces: {otlp: "http://127.0.0.1:1"}, log_buffer: 1MiB}
usage: {cost_in_response: true}
limits: {exchanges: 5}
stores: {counters: "sqlite:a.db"}
status: {port: 1}
"""


def test_what_binds_at_the_start_stays_and_the_rest_of_its_section_changes():
    now, new = parse(NOW), parse(NEXT)
    found = fixed(new, now)
    assert (found.stores, found.status) == (now.stores, now.status)
    assert found.usage.cost_in_response
    assert (found.telemetry.access_log, found.telemetry.log_buffer) == ("off", now.telemetry.log_buffer)
    assert (found.listener.port, found.listener.max_connections) == (1234, 20_000)
    assert changes_of_fixed(new, now) == [*("status", "stores", "listener.max_connections", "telemetry.log_buffer")]
    assert changes_of_fixed(found, now) == []


def test_without_envoy_a_provider_stays_as_it_is_and_names_lead_where_envoy_can_reach_them():
    now, new = parse(NOW), parse(NEXT)
    found = without_envoy(new, now)
    a, gone = found.providers["a"], found.providers["gone"]
    assert (a.base_url, a.disabled) == ("http://127.0.0.1:1/v1", True)
    assert (gone, found.providers["new"].disabled) == (now.providers["gone"], True)
    assert led(found, "m", "moved", "fresh") == {"m": ["a/m"], "moved": ["gone/moved"], "fresh": ["new/fresh"]}
    assert catalog(found).target("m").timeout == 3
    assert (found.listener, found.attribution) == (now.listener, now.attribution)
    assert (found.auth.required, found.auth.jwt, found.telemetry.traces) == (False, (), None)
    assert found.limits.exchanges == 5
    waits = ("providers.a", "providers.new", "models.moved", "models.fresh")
    assert held_back(new, found) == [*waits, "listener", "attribution", "auth.jwt", "telemetry.traces"]


def catalog(settings):
    return Catalog(settings.providers, settings.models, settings.virtual_models, before=settings.before)


def led(settings, *names):
    """The deployments to which each name leads."""
    chains = {name: catalog(settings).resolve(name) for name in names}
    return {name: chain and [target.deployment for target in chain.targets] for name, chain in chains.items()}


HAS = """
providers:
  a: {kind: mock, base_url: "http://127.0.0.1:1/v1"}
  b: {kind: mock, base_url: "http://127.0.0.1:2/v1"}
"""
NEW = '  new: {kind: mock, base_url: "http://127.0.0.1:3/v1"}\n'
M_X = "models: {m: {provider: a, model: x}}"
MOVED = HAS.replace(":1/v1", ":9/v1")  # the provider a has another address


@pytest.mark.parametrize(
    ("old", "new", "leads"),
    [
        ("models: {m: {provider: a}}", NEW + "models: {m: {provider: new}}", {"m": ["a/m"]}),
        # A wildcard covered the name, and other names go on with it.
        (
            'models: {"m*": {provider: a}}',
            NEW + 'models: {"m*": {provider: a}, m1: {provider: new}}',
            {"m1": ["a/m1"], "m2": ["a/m2"]},
        ),
        ('models: {"x/*": {provider: a}}', NEW + "models: {x/m: {provider: new}}", {"x/m": ["a/m"], "x/n": None}),
        # A more special wildcard, and one in place of a name.
        (
            'models: {"m*": {provider: a}}',
            NEW + 'models: {"m*": {provider: b}, "m1*": {provider: new}}',
            {"m11": ["a/m11"], "m2": ["b/m2"]},
        ),
        (M_X, NEW + 'models: {"*": {provider: new}}', {"m": ["a/x"], "n": ["new/n"]}),
        # Chains, nested ones, and names that change their kind.
        (
            "models: {m: {provider: a}}\nvirtual_models: {v: {targets: [{model: m}]}}",
            NEW + "models: {m: {provider: a}, n: {provider: new}}\n"
            "virtual_models: {v: {targets: [{model: n}, {model: m}]}}",
            {"v": ["a/m"], "m": ["a/m"]},
        ),
        (
            "models: {m: {provider: a}}\nvirtual_models: {v: {targets: [{model: m}]}, w: {targets: [{model: v}]}}",
            NEW + "models: {n: {provider: new}}\n"
            "virtual_models: {v: {targets: [{model: n}]}, w: {targets: [{model: v}]}}",
            {"v": ["a/m"], "w": ["a/m"], "m": None},
        ),
        (
            "models: {m: {provider: a}}",
            NEW + "models: {n: {provider: new}}\n"
            "virtual_models: {m: {targets: [{model: n}]}}",
            {"m": ["a/m"]},
        ),
        (M_X, NEW + "models: {n: {provider: new, model: x}}", {"m": None, "a/x": None}),
        # An address changes together with the model's name there.
        (M_X, "models: {m: {provider: a, model: y}}", {"m": ["a/x"]}),
    ],
)  # fmt: skip
def test_names_lead_where_they_did_until_envoy_has_what_they_lead_to(old, new, leads):
    now = parse(HAS + old)
    wanted = parse((HAS if new.startswith(NEW) else MOVED) + new)
    assert led(without_envoy(wanted, now), *leads) == leads


def test_what_the_change_switches_off_is_off_at_once():
    now = parse(
        HAS + "models: {m: {provider: a}, o: {provider: b}}\nvirtual_models: {v: {targets: [{model: m}, {model: o}]}}"
    )
    targets = "[{model: n}, {model: m, disabled: true}, {model: o}]"
    models = "{m: {provider: a}, n: {provider: new}, o: {provider: b, disabled: true}}"
    found = without_envoy(parse(HAS + NEW + f"models: {models}\nvirtual_models: {{v: {{targets: {targets}}}}}"), now)
    chain = catalog(found).resolve("v")
    assert [(target.name, target.disabled) for target in chain.targets] == [("m", True), ("o", True)]
    off = NEW.replace("}", ", disabled: true}")
    found = without_envoy(parse(HAS + off + "models: {m: {provider: new}}"), now)
    assert led(found, "m") == {"m": ["new/m"]}
    assert catalog(found).unavailable(catalog(found).target("m"))[0] == "disabled"


NAMES = "models: {{{}}}\nvirtual_models: {{v: {{targets: [{}]}}, w: {{targets: [{{model: v}}]}}}}"
TWO = NAMES.format("m: {provider: a}, o: {provider: b}", "{model: m}, {model: o}")
M_AND_N = "m: {{provider: a{}}}, o: {{provider: b{}}}, n: {{provider: new}}"
OFF = ", disabled: true"


@pytest.mark.parametrize(
    ("providers", "names", "leads"),
    [
        # The provider, the models, or the targets are switched off: what is left serves, else all that did.
        (HAS.replace("}", OFF + "}"), NAMES.format(M_AND_N.format("", ""), "{model: n}"), ["m", "o"]),
        (HAS.replace('1/v1"', '1/v1"' + OFF), NAMES.format(M_AND_N.format("", ""), "{model: n}"), ["o"]),
        (HAS, NAMES.format(M_AND_N.format(OFF, OFF), "{model: n}, {model: m}"), ["m", "o"]),
        (HAS, NAMES.format(M_AND_N.format(OFF, ""), "{model: n}, {model: m}"), ["o"]),
        (HAS, NAMES.format(M_AND_N.format("", ""), f"{{model: n}}, {{model: m{OFF}}}, {{model: o{OFF}}}"), ["m", "o"]),
    ],
)
def test_what_is_switched_off_serves_until_envoy_has_what_replaces_it(providers, names, leads):
    def able(settings, name):
        found = catalog(settings)
        return [target.name for target in found.resolve(name).targets if found.unavailable(target) is None]

    now, wanted = parse(HAS + TWO), parse(providers + NEW + names)
    found = without_envoy(wanted, now, leaving=True)
    assert (able(found, "v"), able(found, "w")) == (leads, leads)
    assert able(found, "m") == able(wanted, "m"), "a name that Envoy can serve obeys the switch at once"
    assert able(without_envoy(wanted, now), "v") == (leads if leads == ["o"] else [])


GRANTS = (
    "models: {m: {provider: a}, o: {provider: b}}\nvirtual_models: {v: {targets: [{model: m}, {model: o}]}}\n"
    "teams: {t: {models: [v, m, o]}}\nconsumers: [{name: c, team: t, keys: [{env: K}], models: [v, m, o]}]\n"
)
MOVE = (
    NEW + "models: {TO: {provider: new}, o: {provider: b}}\nvirtual_models: {v: {targets: [{model: TO}, {model: o}]}}\n"
)
KEPT = MOVE.replace("TO: ", "m: {provider: a}, TO: ").replace("TO}, ", "TO}, {model: m}, ").replace("{model: o}", "")


@pytest.mark.parametrize(
    ("new", "team", "consumer", "granted"),
    [
        (MOVE, "v, n, o", "v, n, o", ["m", "o"]),
        (MOVE, "v, n, o", "v, n", ["m"]),  # the grant of o ends, where o does not move
        (MOVE, "v, n", "v, n, o", ["m"]),
        (MOVE, "v, n, o", "v, o", ["o"]),  # m moves, but the consumer is not granted n
        (MOVE, "v, n, o", "n, o", None),  # the grants of the name itself end, and of all that it leads to
        (MOVE, "n, o", "v, n, o", None),
        (MOVE, "v, n, o", "v", None),
        (KEPT, "v, n", "v, n", ["o"]),  # m stays a target, but not for the consumer
        (KEPT, "v, n, m", "v, n, m", ["m", "o"]),
    ],
)  # fmt: skip
def test_consumers_keep_the_targets_that_they_had_until_envoy_has_the_new_ones(new, team, consumer, granted):
    """A grant of a target ends with it. A grant that is taken away beside a move ends at once."""
    assert authorized(parse(HAS + GRANTS)) == ["m", "o"]
    who = f"{{name: c, team: t, keys: [{{env: K}}], models: [{consumer}]}}"
    grants = f"teams: {{t: {{models: [{team}]}}}}\nconsumers: [{who}]"
    assert authorized(without_envoy(parse(HAS + new.replace("TO", "n") + grants), parse(HAS + GRANTS))) == granted


def authorized(settings):
    """The targets of v that the consumer c may use, None for 403."""
    earlier = settings.before
    before = earlier and Access(earlier.teams, earlier.groups)
    access = Access(settings.teams, settings.groups, before, earlier.consumers if earlier else {})
    consumer, chain = access.consumer(settings.consumers[0]), catalog(settings).resolve("v")
    exchange = new_exchange("id-1")
    exchange.consumer = consumer
    write(exchange, ask=Ask(model="v"), chain=chain, targets=chain.targets)
    try:
        Authorize()(exchange)
    except Refusal:
        return None
    return [target.name for target in exchange.route.targets]


def test_a_consumer_that_is_new_gets_nothing_of_the_grants_before():
    now = parse(HAS + GRANTS)
    found = without_envoy(
        parse(HAS + MOVE.replace("TO", "n") + "consumers: [{name: d, keys: [{env: K}], models: [v, n]}]"), now
    )
    assert authorized(found) is None


MCP = """
consumers: [{name: c, keys: [{env: K}]}]
stores: {counters: "memory:"}
mcp:
  servers: {SERVERS}
  profiles: {PROFILES}
"""


def test_a_profile_with_a_server_that_envoy_has_not_got_stays_as_it_is():
    one, two = 'one: {url: "http://127.0.0.1:1/"}', 'two: {url: "http://127.0.0.1:2/"}'
    now = parse(MCP.replace("SERVERS", one).replace("PROFILES", "dev: {servers: {one: {}}}"))
    both = "dev: {servers: {two: {}}}, other: {servers: {two: {}}}"
    found = without_envoy(parse(MCP.replace("SERVERS", two).replace("PROFILES", both)), now).mcp
    assert (list(found.profiles["dev"].servers), list(found.profiles["other"].servers)) == (["one"], ["two"])
    assert (found.servers["one"].disabled, found.servers["two"].disabled) == (False, True)


def test_a_change_of_rules_of_the_cache_needs_no_envoy():
    none, shadow, enforced = [
        parse(NOW + text)
        for text in ("", "cache: {rules: [{mode: shadow}]}", "cache: {rules: [{mode: enforce}, {}], wait: 1s}")
    ]
    assert digest(shadow) == digest(enforced) != digest(none)
    assert make(shadow, "", "/s").listeners == make(enforced, "", "/s").listeners != make(none, "", "/s").listeners


def test_a_wait_for_a_person_is_in_envoys_settings():
    """Envoy gives the processor as long as the longest wait, of a budget or of a call of a tool."""
    budget = "budgets: [{name: b, unit: usd, limit: 1, window: day, on_exceed: ask, wait: %s}]"
    tool = (
        "mcp: {servers: {s: {url: 'http://a.test/mcp'}}, profiles: {p: {servers: {s: {}}}}, tools: {s/t: {%s}}, "
        "approvals: {wait: 2m}}"
    )
    assert digest(parse(NOW + budget % "1m")) != digest(parse(NOW + budget % "2m"))
    assert digest(parse(NOW + budget % "0s")) == digest(parse(NOW + (budget % "0s").replace("limit: 1", "limit: 2")))
    assert digest(parse(NOW + tool % "approve: always")) != digest(parse(NOW + tool % "sensitive: true"))
    assert (parse(NOW + tool % "approve: always").longest_wait, parse(NOW + tool % "price: 1").longest_wait) == (120, 0)

"""A configuration of LiteLLM's proxy becomes settings that load, and what is lost is said."""

import pytest

from extproc.cli._litellm import convert
from extproc.cli._litellm_limits import period
from extproc.cli._litellm_names import KINDS, STRATEGIES
from extproc.routing.strategies import strategies
from extproc.settings.config import parse
from extproc.settings.document import ConfigError
from extproc.upstream.providers import kinds

CONFIG = """
model_list:
  - model_name: gpt-4o
    litellm_params:
      {model: azure/gpt-4o-eu, api_base: "https://eu.openai.azure.com/", api_key: os.environ/AZURE_EU,
       api_version: "2024-10-21", rpm: 6}
  - model_name: gpt-4o
    litellm_params: {model: openai/gpt-4o, api_key: sk-CANARY-1, rpm: 60, organization: org-1}
  - model_name: claude
    litellm_params: {model: anthropic/claude-sonnet-4-6, api_key: os.environ/ANTHROPIC_API_KEY}
    model_info: {input_cost_per_token: 0.000003, output_cost_per_token: 0.000015}
  - {model_name: nova, litellm_params: {model: bedrock/amazon.nova-pro-v1:0, aws_region_name: us-west-2}}
  - {model_name: "openai/*", litellm_params: {model: "openai/*"}}
  - model_name: own
    litellm_params: {model: openai/opt-125m, api_base: "http://vllm:8000/v1", api_key: CANARY-2, timeout: 300}
  - {model_name: mine, litellm_params: {model: openai/opt-125m, api_base: "http://other:8000/v1"}}
  - {model_name: odd, litellm_params: {model: replicate/x/y}}
litellm_settings:
  drop_params: true
  fallbacks: [{gpt-4o: [claude, nova]}, {claude: [gpt-4o]}]
  callbacks: [langfuse]
router_settings: {routing_strategy: simple-shuffle, model_group_alias: {gpt-4: gpt-4o, gone: away}}
general_settings: {master_key: sk-CANARY-3, database_url: "postgres://CANARY-4"}
"""


@pytest.fixture(scope="module")
def converted():
    return convert(CONFIG, "config.yaml")


def told_by(conversion):
    return [note.show("config.yaml") for note in conversion.notes]


def one(params, *, name="x", more=""):
    """The conversion of one deployment."""
    return convert(f"model_list: [{{model_name: {name!r}, litellm_params: {{{params}}}}}]\n{more}", "config.yaml")


def test_deployments_and_fallbacks_become_targets(converted):
    settings = parse(converted.text)
    virtual = settings.virtual_models
    assert [target.model for target in virtual["gpt-4o"].targets] == ["gpt-4o-own", "claude-own", "nova"]
    assert [target.model for target in virtual["claude"].targets] == ["claude-own", "gpt-4o-own"], (
        "each names the other"
    )
    assert virtual["gpt-4o-own"].strategy == ("weighted",)
    assert [(target.model, target.weight) for target in virtual["gpt-4o-own"].targets] == [
        ("gpt-4o@1", 6),
        ("gpt-4o@2", 60),
    ]
    assert virtual["gpt-4"].targets[0].model == "gpt-4o"
    assert settings.models["nova"].model == "amazon.nova-pro-v1:0"
    assert settings.models["claude-own"].price.output == 15
    assert settings.models["own"].timeout == 300
    assert settings.providers["aws_bedrock"].region == "us-west-2"


def test_secrets_are_referred_to_and_each_provider_keeps_its_own(converted):
    text, notes = converted.text, "".join(note.show("") for note in converted.notes)
    assert "CANARY" not in text + notes
    providers = parse(text).providers
    keys = {name: provider.api_key and provider.api_key.where for name, provider in providers.items()}
    assert keys == {
        "eu-openai-azure-com": "AZURE_EU",
        "openai": "GATEWAY_OPENAI_KEY",
        "anthropic": "ANTHROPIC_API_KEY",
        "aws_bedrock": None,
        "openai-2": "OPENAI_API_KEY",
        "vllm": "GATEWAY_OPENAI_KEY2",
        "other": None,
    }
    assert providers["other"].base_url == "http://other:8000/v1"
    assert parse(text).consumers[0].keys[0].env == "GATEWAY_MASTER_KEY"


def test_everything_without_a_counterpart_is_named(converted):
    odd = "model_list.7.litellm_params.model: left out: there is no kind of provider for 'replicate/x/y'"
    assert [told for told in told_by(converted) if "key is not copied" not in told] == [
        "config.yaml:8:75: model_list.1.litellm_params.organization: no counterpart",
        f"config.yaml:17:40: {odd}",
        "config.yaml:21:3: litellm_settings.callbacks: see docs/telemetry.md",
        "config.yaml:22:88: router_settings.model_group_alias.gone: left out: there is no model 'away'",
        "config.yaml:23:45: general_settings.database_url: see `stores.ledger` in docs/ledger.md",
    ]
    assert len([told for told in told_by(converted) if "key is not copied" in told]) == 3


def test_the_tables_name_what_exists():
    assert set(KINDS.values()) <= set(kinds())
    assert set(STRATEGIES.values()) <= set(strategies())


@pytest.mark.parametrize("text", ["", "a: [", "model_list: 5", "- a", "model_list: []"])
def test_other_files_are_refused(text):
    with pytest.raises(ValueError, match=r"config\.yaml"):
        convert(text, "config.yaml")


def test_such_a_file_as_settings_names_the_verb():
    with pytest.raises(ConfigError, match=r"1:1: model_list: .* extproc import litellm gateway\.yaml"):
        parse("model_list: []")


def test_the_verb_prints_settings_and_notes_apart(run, tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text(CONFIG)
    status, out, err = run("import", "litellm", file)
    assert status == 0
    assert parse(out)
    where = f"{file}:8:44: model_list.1.litellm_params.api_key"
    assert f"{where}: its key is not copied: set the variable GATEWAY_OPENAI_KEY" in err.splitlines()


def test_a_deployment_does_not_take_the_name_of_another_model():
    found = convert(
        "model_list:\n"
        "- {model_name: llama-3, litellm_params: {model: groq/llama-3.3-70b-versatile}}\n"
        "- {model_name: llama-3, litellm_params: {model: together_ai/llama-3}}\n"
        "- {model_name: llama-3-1, litellm_params: {model: ollama/llama3.1}}\n",
        "config.yaml",
    )
    settings = parse(found.text)
    assert settings.models["llama-3-1"].provider == "ollama"
    used = [settings.models[target.model].provider for target in settings.virtual_models["llama-3"].targets]
    assert used == ["groq", "together"]


@pytest.mark.parametrize(
    ("model", "kind", "there"),
    [
        ("gpt-4o", "openai", "gpt-4o"),
        ("claude-3-5-sonnet-20241022", "anthropic", "claude-3-5-sonnet-20241022"),
        ("command-r-plus", "cohere", "command-r-plus"),
        ("openai/responses/o3", "openai", "o3"),
        ("bedrock/converse/amazon.nova-pro-v1:0", "aws_bedrock", "amazon.nova-pro-v1:0"),
        ("bedrock/eu-west-1/amazon.nova-pro-v1:0", "aws_bedrock", "amazon.nova-pro-v1:0"),
    ],
)
def test_the_provider_is_the_one_that_litellm_would_ask(model, kind, there):
    settings = parse(one(f"model: {model!r}").text)
    assert settings.providers[settings.models["x"].provider].kind == kind
    assert settings.models["x"].model == there


def test_without_a_master_key_only_this_machine_may_ask():
    found = one("model: openai/gpt-4o")
    settings = parse(found.text)
    assert (settings.auth.required, settings.listener.address) == (False, "127.0.0.1")
    assert "requests need no key, and the listener takes those of this machine only" in told_by(found)[0]
    settings = parse(one("model: openai/gpt-4o", more="general_settings: {master_key: os.environ/KEY}").text)
    assert (settings.auth.required, settings.listener.address) == (True, "0.0.0.0")


def test_a_provider_that_is_a_guess_is_named():
    assert (
        "model_list.0.litellm_params.model: 'mine' names no provider; openai is a guess"
        in told_by(one("model: mine"))[-1]
    )


def test_an_address_ends_where_the_api_begins_here():
    providers = parse(one("model: ollama/llama3, api_base: 'http://localhost:11434'").text).providers
    assert providers["ollama"].base_url == "http://localhost:11434/v1"
    providers = parse(one("model: lm_studio/mine, api_base: 'http://localhost:1234/v1'").text).providers
    assert (providers["openai"].kind, providers["openai"].base_url) == ("openai", "http://localhost:1234/v1")


@pytest.mark.parametrize(
    ("name", "model", "there"),
    [
        ("openai/*", "openai/*", "gpt-4o"),
        ("*", "openai/*", "openai/gpt-4o"),
        ("gpt-*", "openai/gpt-*", None),
        ("bedrock-*", "bedrock/*", None),
        ("openai/gpt-*", "openai/gpt-*", None),
        ("*", "*", None),
        ("deepinfra/*", "deepinfra/*", None),
        ("any/*", "openai/gpt-4o", "gpt-4o"),
    ],
)
def test_a_wildcard_is_converted_where_it_leads_to_the_same_names(name, model, there):
    if there is None and name != "gpt-*":
        with pytest.raises(ValueError, match=r"config\.yaml:1:\d+: model_list.0.litellm_params.model: "):
            one(f"model: {model!r}", name=name)
    else:
        settings = parse(one(f"model: {model!r}", name=name).text)
        assert settings.models[name].model == (there if "*" not in model else None)


def test_a_price_a_time_or_an_address_that_is_none_is_told():
    prices = "model: openai/gpt-4o, input_cost_per_token: abc, output_cost_per_token: 1"
    assert "no price: it needs input_cost_per_token and output_cost_per_token, two numbers" in told_by(one(prices))[-1]
    prices = "model: openai/gpt-4o, input_cost_per_token: null, output_cost_per_token: 1"
    assert parse(one(prices).text).models["x"].price is None
    prices = "model: openai/gpt-4o, input_cost_per_token: 3e-6, output_cost_per_token: 15e-6"
    assert parse(one(prices).text).models["x"].price.output == 15
    assert "timeout: left out: no number of seconds" in told_by(one("model: openai/gpt-4o, timeout: 0"))[-1]
    with pytest.raises(ValueError, match=r"config\.yaml:1:\d+: .* left out: base_url: base_url must be http"):
        one("model: openai/gpt-4o, api_base: 'localhost:8000'")


def test_fallbacks_and_aliases_that_lead_nowhere_are_told():
    more = """
litellm_settings: {fallbacks: [{x: [gone]}, {away: [x]}, {"*": [x]}]}
router_settings: {model_group_alias: {hid: {model: x, hidden: true}, x: x}}
guardrails: [{guardrail_name: g}]
mcp_servers: {a: {url: "https://a.test"}}
"""
    found = one("model: openai/gpt-4o", more=more)
    assert parse(found.text).virtual_models["hid"].targets[0].model == "x"
    assert [told.split(": ", 1)[1] for told in told_by(found)][1:] == [
        "litellm_settings.fallbacks.0: 'gone' is left out: it is the name of no single model",
        "litellm_settings.fallbacks.1: left out: 'away' is the name of no model",
        "router_settings.model_group_alias.hid: hidden: no counterpart: GET /v1/models lists it",
        "router_settings.model_group_alias.x: left out: a model has this name",
        "guardrails: see docs/guardrails.md",
        "mcp_servers: see docs/mcp.md",
    ]


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("model_list:\n  - a: b\n   c: d", "3:4"),
        ("model_list:\n\t- a", "2:1"),
        ("a: 1", "1:1"),
        ("model_list: [5]", "1:14"),
    ],
)
def test_a_refused_file_is_refused_with_the_place(text, place):
    with pytest.raises(ValueError, match=f"config.yaml:{place}: "):
        convert(text, "config.yaml")


def test_settings_that_need_a_hand_are_printed_all_the_same(run, tmp_path):
    file = tmp_path / "config.yaml"
    targets = "".join(f"  - {{model_name: x, litellm_params: {{model: openai/m{number}}}}}\n" for number in range(17))
    file.write_text(f"model_list:\n{targets}")
    status, out, err = run("import", "litellm", file)
    assert status == 1
    assert "virtual_models:" in out
    assert "correct this in the settings printed: line:" in err
    file.write_bytes(b"\xff\xfe")
    assert run("import", "litellm", file) == (1, "", f"{file}:1:1: file: the file is not UTF-8\n")


LIMITS = """
model_list:
  - {model_name: chat, litellm_params: {model: openai/gpt-4o, rpm: 60, tpm: 1000, max_retries: 3, stream_timeout: 20}}
  - {model_name: chat, litellm_params: {model: azure/gpt-4o, api_base: "https://eu.azure.test", rpm: 40}}
  - model_name: think
    litellm_params: {model: openai/o3, extra_body: {reasoning: {effort: low}}, temperature: 1, num_retries: 0}
  - {model_name: capped, litellm_params: {model: anthropic/claude-sonnet-4-6, max_budget: 12.5, budget_duration: 1d}}
litellm_settings: {max_budget: 100, budget_duration: 30d, num_retries: 2, request_timeout: 90}
router_settings: {provider_budget_config: {openai: {budget_limit: 5, time_period: 10d}, groq: {budget_limit: 1}}}
general_settings: {max_parallel_requests: 50}
"""


def test_limits_become_budgets():
    found = convert(LIMITS, "config.yaml")
    budgets = {budget.name: budget for budget in parse(found.text).budgets}
    shown = {name: (budget.match, budget.unit, float(budget.limit), budget.window) for name, budget in budgets.items()}
    assert shown == {
        "chat-rpm": ({"model": "chat@*"}, "requests", 100, "minute"),
        "capped-max_budget": ({"model": "capped@*"}, "usd", 12.5, "day"),
        "all-max_budget": ({}, "usd", 100, "month"),
        "all-max_parallel_requests": ({}, "concurrency", 50, None),
        "provider-openai": ({"provider": "openai"}, "usd", 5, "month"),
    }
    told = "\n".join(told_by(found))
    assert "litellm_params.tpm: left out: the deployments of 'chat' do not all have it, for one period" in told
    assert "openai.budget_duration: no window here lasts 10d: the budget is for a month, the next longer one" in told
    assert "provider_budget_config.groq: left out: it needs budget_limit, and a provider of model_list" in told


def test_retries_times_and_fields_of_requests_are_kept():
    settings = parse(convert(LIMITS, "config.yaml").text)
    chat, think, capped = (settings.virtual_models[name] for name in ("chat", "think", "capped"))
    assert (chat.retry.attempts, [target.tries for target in chat.targets]) == (4, [2, 2])
    assert chat.retry.per_try_timeout_stream == 20
    assert (think.targets[0].override, think.targets[0].default) == (
        {"reasoning": {"effort": "low"}},
        {"temperature": 1},
    )
    assert think.retry.attempts == 1
    assert (capped.retry.attempts, capped.targets[0].tries) == (3, 3)
    assert {model.timeout for model in settings.models.values()} == {90}


@pytest.mark.parametrize(
    ("told", "window", "exact"),
    [
        (None, "total", True),
        ("60s", "minute", True),
        ("1h", "hour", True),
        ("daily", "day", True),
        ("7d", "week", True),
        ("30d", "month", True),
        ("1mo", "month", True),
        ("3mo", "quarter", True),
        ("5m", "hour", False),
        ("1y", "total", False),
        ("-1d", "total", False),
    ],
)
def test_a_duration_becomes_the_window_that_is_not_shorter(told, window, exact):
    found, note = period(told)
    assert (found, not note) == (window, exact)


def test_each_name_for_the_same_deployments_has_their_retries_and_times():
    found = convert(
        "model_list:\n"
        "  - {model_name: a, litellm_params: {model: openai/gpt-4o, stream_timeout: 5, max_retries: 3, weight: 2}}\n"
        "  - {model_name: a, litellm_params: {model: openai/gpt-4.1, stream_timeout: 5, max_retries: 3, rpm: 9}}\n"
        "  - {model_name: b, litellm_params: {model: anthropic/claude-sonnet-4-6}}\n"
        "router_settings:\n"
        "  {routing_strategy: latency-based-routing, fallbacks: [{a: [b]}], model_group_alias: {a-too: a}}\n",
        "config.yaml",
    )
    settings = parse(found.text)
    retries = {
        name: (virtual.retry.attempts, virtual.retry.per_try_timeout_stream)
        for name, virtual in settings.virtual_models.items()
    }
    assert retries == {"a": (5, 5.0), "a-own": (4, 5.0), "a-too": (5, 5.0)}
    assert {target.weight for target in settings.virtual_models["a-own"].targets} == {1}  # latency knows no weight


@pytest.mark.parametrize(
    ("more", "source"),
    [
        ("", "metadata"),
        (", vertex_credentials: /etc/key.json", "file:/etc/key.json"),
        (", vertex_credentials: os.environ/V", "metadata"),
    ],
)
def test_tokens_of_google_come_from_where_they_came_there(more, source):
    found = one(f"model: vertex_ai/gemini-3-pro, vertex_project: acme-ml, vertex_location: europe-west4{more}")
    [provider] = parse(found.text).providers.values()
    assert str(provider.credentials.google).rstrip(":") == source
    assert any("its tokens come from the metadata server" in told for told in told_by(found)) == (source == "metadata")


FALLBACKS = """
model_list:
  - {model_name: a, litellm_params: {model: openai/gpt-4o}}
  - {model_name: a/small, litellm_params: {model: openai/gpt-4o-mini}}
  - {model_name: b, litellm_params: {model: anthropic/claude-sonnet-4-6}}
  - {model_name: "groq/*", litellm_params: {model: "groq/*"}}
litellm_settings: {fallbacks: [{"a*": [b]}, {"groq/*": [b]}, {a: [a/small]}], default_fallbacks: [a]}
"""


def test_patterns_of_fallbacks_stand_for_the_names_they_cover():
    found = convert(FALLBACKS, "config.yaml")
    virtual = parse(found.text).virtual_models
    order = {name: [target.model for target in model.targets] for name, model in virtual.items()}
    assert order == {"a": ["a-own", "a/small-own"], "a/small": ["a/small-own", "b-own"], "b": ["b-own", "a-own"]}
    wildcard = (
        "litellm_settings.fallbacks.1: left out for names that only 'groq/*' covers: no virtual model is a wildcard"
    )
    assert any(told.endswith(wildcard) for told in told_by(found))


def test_a_variable_that_cannot_be_referred_to_is_filled_in_or_refused(monkeypatch):
    text = "model: azure/gpt-4o, api_base: os.environ/AZURE_BASE, api_key: os.environ/AZURE_KEY"
    monkeypatch.delenv("AZURE_BASE", raising=False)
    with pytest.raises(ValueError, match="set the variable AZURE_BASE and convert again, or write its value"):
        one(text)
    monkeypatch.setenv("AZURE_BASE", "https://eu.azure.test")
    assert parse(one(text).text).providers["eu-azure-test"].base_url == "https://eu.azure.test"


@pytest.mark.parametrize(
    "base",
    [
        "https://<your-endpoint>.openai.azure.com",
        "https://YOUR_HOST /v1",
        "http://$HOST/v1",
        "https://YOUR_RESOURCE.openai.azure.com",
        "https://your-endpoint.openai.azure.com/",
        "https://xxxx.openai.azure.com",
    ],
)
def test_an_address_that_is_still_a_placeholder_is_refused(base):
    with pytest.raises(ValueError, match="no deployment in it can be converted"):
        one(f"model: azure/gpt-4o, api_base: {base!r}")


def test_the_verb_ends_with_a_summary(run, tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text(CONFIG)
    lines = run("import", "litellm", file)[2].splitlines()
    told = (
        "Converted: 7 providers, 7 models, 4 virtual models, 1 budget. Notes above on what needs a hand or was left out"
    )
    assert lines[-3] == f"{told}: 8."
    assert lines[-2].startswith("The gateway reads these variables: ANTHROPIC_API_KEY, AZURE_EU, GATEWAY_MASTER_KEY,")
    assert lines[-1] == "Keys, teams and users in LiteLLM's database are not in its file: docs/access.md"

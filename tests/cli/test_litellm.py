"""A configuration of LiteLLM's proxy becomes settings that load, and what is lost is said."""

import pytest

from extproc.cli._litellm import KINDS, STRATEGIES, convert
from extproc.providers import kinds
from extproc.routing.strategies import strategies
from extproc.settings.config import ConfigError, parse

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


def test_deployments_and_fallbacks_become_targets(converted):
    settings = parse(converted[0])
    virtual = settings.virtual_models
    assert [target.model for target in virtual["gpt-4o"].targets] == ["gpt-4o-own", "claude-own", "nova"]
    assert [target.model for target in virtual["claude"].targets] == ["claude-own", "gpt-4o-own"], (
        "each names the other"
    )
    assert virtual["gpt-4o-own"].strategy == "weighted"
    assert [(target.model, target.weight) for target in virtual["gpt-4o-own"].targets] == [
        ("gpt-4o-1", 6),
        ("gpt-4o-2", 60),
    ]
    assert virtual["gpt-4"].targets[0].model == "gpt-4o"
    assert settings.models["nova"].model == "amazon.nova-pro-v1:0"
    assert settings.models["claude-own"].price.output == 15
    assert settings.models["own"].timeout == 300
    assert settings.providers["aws_bedrock"].region == "us-west-2"


def test_secrets_are_referred_to_and_each_provider_keeps_its_own(converted):
    text, notes = converted
    assert "CANARY" not in text + "".join(notes)
    providers = parse(text).providers
    keys = {name: provider.api_key and provider.api_key.where for name, provider in providers.items()}
    assert keys == {
        "azure_openai_dated": "AZURE_EU",
        "openai": "GATEWAY_OPENAI_KEY",
        "anthropic": "ANTHROPIC_API_KEY",
        "aws_bedrock": None,
        "openai-2": "OPENAI_API_KEY",
        "openai-3": "GATEWAY_OPENAI_KEY2",
        "openai-4": None,
    }
    assert providers["openai-4"].base_url == "http://other:8000/v1"
    assert parse(text).consumers[0].keys[0].env == "GATEWAY_MASTER_KEY"


def test_everything_without_a_counterpart_is_named(converted):
    assert [note for note in converted[1] if "key is not copied" not in note] == [
        "model_list.1.litellm_params.organization: no counterpart",
        "model_list.7: left out: there is no kind of provider for 'replicate/x/y'",
        "router_settings.model_group_alias.gone: left out: there is no model 'away'",
        "litellm_settings.callbacks: see docs/telemetry.md",
        "general_settings.database_url: see `stores.ledger` in docs/ledger.md",
    ]
    assert len([note for note in converted[1] if "key is not copied" in note]) == 3


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
    assert err.splitlines()[0].endswith("its key is not copied: set the variable GATEWAY_OPENAI_KEY")

"""Credentials of every family, made at random; look-alikes that are none; disguises; streams."""

import base64
import random
import re
import string

import pytest
from pydantic import ValidationError

from extproc.guardrails import kinds
from extproc.guardrails._normal import normalised
from extproc.guardrails.secrets import FAMILIES, Secrets

SECRETS = Secrets()
CLASSES = {
    "A": string.ascii_letters + string.digits,
    "W": string.ascii_letters + string.digits + "_-",
    "U": string.ascii_uppercase + string.digits,
    "B": string.ascii_uppercase + "234567",
    "b": string.ascii_lowercase + "234567",
    "h": "0123456789abcdef",
    "d": string.digits,
    "l": string.ascii_lowercase + string.digits,
    "x": string.ascii_letters + string.digits + "+/",
}

# Tokens by family; <A36> are 36 random characters of a class, « and » enclose the secret.
# No token stands here, so that scanners leave this file alone.
TOKENS = {
    "aws_access_key": ["AKIA<B16>", "ASIA<B16>"],
    "aws_secret_key": [
        "aws_secret_access_key = «<x40>»",
        "AWS_SECRET_ACCESS_KEY=«<x40>»",
        '"SecretAccessKey": "«<x40>»"',
    ],
    "aws_bedrock_key": ["ABSK<x120>="],
    "gcp_api_key": ["AIza<W35>"],
    "gcp_oauth": ["ya29.<W60>", "GOCSPX-<W28>"],
    "gcp_service_account": ['"private_key_id": "«<h40>»"'],
    "azure_storage_key": [
        "AccountName=shop;AccountKey=«<x86>==»;EndpointSuffix=core.windows.net",
        "SharedAccessKey=«<x43>=»",
    ],
    "azure_client_secret": ["<A3>8Q~<A34>"],
    "azure_key": ["<A52>JQQJ99<A10>AC<A14>", "AZURE_OPENAI_API_KEY=«<h32>»", "Ocp-Apim-Subscription-Key: «<h32>»"],
    "openai": ["sk-<A20>T3BlbkFJ<A20>", "sk-proj-<W60>", "sk-svcacct-<W60>", "sk-or-v1-<h64>", "sk-<h48>"],
    "anthropic": ["sk-ant-api03-<W93>AA", "sk-ant-admin01-<W93>AA"],
    "github": ["ghp_<A36>", "gho_<A36>", "ghs_<A36>", "ghr_<A36>", "github_pat_<A22>_<A59>"],
    "gitlab": ["glpat-<W20>", "gldt-<W20>", "glrt-<W20>", "GR1348941<W20>"],
    "slack": [
        "xoxb-<d12>-<d13>-<A24>",
        "xoxp-<d12>-<d12>-<d12>-<h32>",
        "xapp-1-A<U10>-<d13>-<h64>",
        "https://hooks.slack.com/services/T<U10>/B<U10>/<A24>",
    ],
    "stripe": ["sk_live_<A24>", "sk_test_<A24>", "rk_live_<A99>", "whsec_<A32>"],
    "twilio": ["SK<h32>", "TWILIO_AUTH_TOKEN=«<h32>»"],
    "sendgrid": ["SG.<W22>.<W43>"],
    "mailgun": ["key-<h32>", "<h32>-<h8>-<h8>"],
    "mailchimp": ["<h32>-us12"],
    "npm": ["npm_<A36>", "//registry.example.com/:_authToken=«<A40>»"],
    "pypi": ["pypi-AgEIcHlwaS5vcmc<W120>"],
    "huggingface": ["hf_<A34>"],
    "databricks": ["dapi<h32>", "dapi<h32>-2"],
    "jwt": ["{jwt}"],
    "private_key": ["{pem}"],
    "database_url": [
        "postgres://shop:«<A14>»@db.internal:5432/orders",
        "mongodb+srv://app:«<A12>»@cluster0.ab1cd.mongodb.net",
        "redis://:«<A20>»@cache:6379/0",
        "mysql://root:«<A9>»@10.0.0.5/shop",
        "Server=db.internal;Database=shop;User Id=sa;Password=«<A12>»;",
    ],
    "digitalocean": ["dop_v1_<h64>"],
    "shopify": ["shpat_<h32>"],
    "telegram": ["<d10>:AA<A33>"],
    "discord": ["M<A23>.<A6>.<A27>"],
    "grafana": ["glsa_<A32>_<h8>"],
    "vault": ["hvs.<A24>"],
    "terraform": ["<A14>.atlasv1.<A67>"],
    "doppler": ["dp.pt.<A43>"],
    "linear": ["lin_api_<A40>"],
    "notion": ["ntn_<A46>", "secret_<A43>"],
    "airtable": ["pat<A14>.<h64>"],
    "atlassian": ["ATATT3<A186>"],
    "postman": ["PMAK-<h24>-<h34>"],
    "newrelic": ["NRAK-<U27>"],
    "sentry": ["sntryu_<h64>"],
    "square": ["sq0atp-<W22>", "EAAAl<W59>"],
    "planetscale": ["pscale_tkn_<A43>"],
    "rubygems": ["rubygems_<h48>"],
    "supabase": ["sbp_<h40>"],
    "model_provider": ["gsk_<A52>", "xai-<A80>", "pplx-<A48>", "r8_<A37>", "COHERE_API_KEY=«<A40>»"],
    "docker": ["dckr_pat_<A27>"],
    "cloudflare": ["v1.0-<h24>-<h146>", "CLOUDFLARE_API_TOKEN=«<A40>»"],
    "datadog": ["DD_API_KEY=«<h32>»", "datadog_app_key: «<h40>»"],
    "okta": ["Authorization: SSWS «00<A40>»"],
    "dropbox": ["sl.<A140>"],
    "facebook": ["EAACE<A120>"],
    "twitter": ["AAAAAAAAAAAAAAAAAAAAAA<A80>"],
    "dynatrace": ["dt0c01.<U24>.<U64>"],
    "build_service": ["pul-<h40>", "nfp_<A36>", "bkua_<h40>", "squ_<h40>"],
    "business_service": ["figd_<A40>", "pat-na1-<h8>-<h4>-<h4>-<h4>-<h12>", "shippo_live_<h40>"],
    "authorization": ["Authorization: Basic «{basic}»", "Authorization: Bearer «<A40>»"],
    "teams_webhook": [
        "https://a.webhook.office.com/webhookb2/<h8>-<h4>-<h4>@<h8>-<h4>-<h4>-<h12>/IncomingWebhook/<h32>/<h8>-<h4>-<h22>"
    ],
    "user_password": [
        "curl -u admin:«<A14>» https://a.example",
        "machine git.example login ana password «<A14>»",
        "define( 'DB_PASSWORD', '«<W20>»' );",
        "'PASSWORD': '«<W16>»',",
        "my password is «<A6>7<A6>»",
    ],
    "assignment": ['api_key = "«<A32>»"', "DB_PASSWORD=«<A24>»", "client_secret: «<W40>»"],
}
PLACES = [
    "{}",
    "Why does this fail? key: {}",
    "```\nexport KEY='{}'\n```",
    '{{"value": "{}"}}',
    "my token is {}, keep it",
    "({})",
]


def made(template, rng):
    """A token of a template, and the part of it that is the secret (between « and »)."""
    text = template
    if template == "{jwt}":
        parts = b'{"alg":"HS256","typ":"JWT"}', b'{"sub":"%d"}' % rng.randrange(10**9), rng.randbytes(32)
        text = ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts)
    elif template == "{pem}":
        lines = "\n".join(base64.b64encode(rng.randbytes(48)).decode() for _ in range(6))
        text = f"-----BEGIN RSA {'PRIVATE'} KEY-----\n{lines}\n-----END RSA {'PRIVATE'} KEY-----"
    text = text.replace("{basic}", base64.b64encode(f"u{rng.randrange(10**6)}:pa55word".encode()).decode())
    text = re.sub("<([A-Za-z])([0-9]+)>", lambda match: "".join(rng.choices(CLASSES[match[1]], k=int(match[2]))), text)
    before, mark, rest = text.partition("«")
    secret, _, after = rest.partition("»")
    return (before + secret + after, secret) if mark else (text, text)


def test_every_family_has_an_example_here():
    assert set(TOKENS) == {family.name for family in FAMILIES}


@pytest.mark.parametrize("family", TOKENS)
def test_tokens_of_a_family_are_found_where_they_stand(family):
    rng = random.Random(family)
    seen = missed = 0
    for template in TOKENS[family]:
        for place in PLACES:
            for _ in range(4):
                token, secret = made(template, rng)
                text = place.format(token)
                spans = [text[slice(*finding.span)] for finding in SECRETS.find(text, "user", "x")]
                seen += 1
                missed += not any(secret.strip("=-_") in span for span in spans)
    assert missed <= seen * 0.02


NO_SECRETS = [
    "sk-learn-contrib-project-template-for-new-users",
    "Use AKIAXXXXXXXXXXXXXXXX as a placeholder",
    "export OPENAI_API_KEY=your-key-goes-here-please",
    "OPENAI_API_KEY=sk-xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
    "password = input('Enter your password: ')",
    "token = secrets.token_urlsafe(32)",
    "api_key: ${{ secrets.DEPLOY_API_KEY_2024 }}",
    "postgres://user:password@localhost/db",
    "postgres://${USER}:${PASSWORD}@db/orders",
    "git show 3f786850e387550fdab836ed7e6dc881de23001b",
    "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "id 123e4567-e89b-12d3-a456-426614174000",
    "https://example.com/a:b@c",
    "The Authorization: Bearer <token> header",
    "the secret=tokenization_of_long_words is a phrase",
    "eyJust.some.words and eyJanother.eyJword.notatokenatall",
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk",
    "-----BEGIN PUBLIC KEY-----\nMIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEA\n-----END PUBLIC KEY-----",
    "password: I forgot mine, what is the policy?",
    "max_tokens=4096, token_limit=1000000000000",
]


@pytest.mark.parametrize("text", NO_SECRETS)
def test_look_alikes_are_no_secrets(text):
    assert SECRETS.find(text, "user", "x") == []


def token(seed=1):
    return made("ghp_<A36>", random.Random(seed))[0]


DISGUISES = {
    "zero width": "\u200b".join,
    "full width": lambda text: "".join(chr(ord(letter) + 0xFEE0) for letter in text),
    "tags": lambda text: "".join(chr(0xE0000 + ord(letter)) for letter in text),
    "base64": lambda text: base64.b64encode(f"key={text}".encode()).decode(),
    "base64, URL-safe": lambda text: base64.urlsafe_b64encode(f"key={text}".encode()).decode().rstrip("="),
    "hexadecimal": lambda text: text.encode().hex(),
    "percent": lambda text: "".join(f"%{ord(letter):02X}" for letter in text),
    "JSON": lambda text: "".join(f"\\u{ord(letter):04x}" for letter in text),
    "C": lambda text: "".join(f"\\x{ord(letter):02x}" for letter in text),
    "HTML": lambda text: "".join(f"&#{ord(letter)};" for letter in text),
}


@pytest.mark.parametrize("disguise", DISGUISES)
def test_a_disguised_token_is_found_and_its_span_covers_the_disguise(disguise):
    hidden = DISGUISES[disguise](token())
    text = normalised(f"Take é {hidden} now")
    [finding] = SECRETS.find(text, "user", "x")
    assert finding.kind == "github"
    start, end = finding.span
    assert text[:start].endswith(" ")
    assert text[end:] == " now"


def test_a_span_is_in_characters_of_the_text():
    text = f"🌍é日本 {token()} 🌍 {token(2)}"
    assert [text[slice(*found.span)] for found in SECRETS.find(text, "user", "x")] == [token(), token(2)]


def test_a_lone_surrogate_is_no_obstacle():
    assert len(SECRETS.find(f"\ud83d {token()}", "user", "x")) == 1


def test_what_is_held_of_a_stream_is_never_too_little():
    """A match that begins in front of the held characters is found already, with the same span."""
    rng = random.Random(7)
    for family, templates in TOKENS.items():
        if family == "private_key":
            continue  # it grows, and is found from its first line on
        text = f"see {made(templates[0], rng)[0]} and more words"
        whole = [(found.kind, found.span) for found in SECRETS.find(text, "assistant", "x")]
        for end in range(len(text)):
            part = text[:end]
            begun = end - SECRETS.hold(part)
            early = [(found.kind, found.span) for found in SECRETS.find(part, "assistant", "x")]
            assert [one for one in whole if one[1][0] < begun] == [one for one in early if one[1][0] < begun], (
                family,
                part,
            )


def test_skipped_families_are_not_searched():
    settings = kinds()["secrets"](name="s", kind="secrets", skip=["github", "assignment"])
    assert settings.build().find(token(), "user", "x") == []
    with pytest.raises(ValidationError, match="not a family"):
        kinds()["secrets"](name="s", kind="secrets", skip=["github", "nothing"])


def test_long_hostile_text_takes_time_in_proportion():
    for text in (
        "sk-" * 100_000,
        "ey" * 150_000,
        "password=" * 30_000,
        "https://" * 30_000 + ":",
        "-----BEGIN " * 25_000,
    ):
        SECRETS.find(text, "user", "x")

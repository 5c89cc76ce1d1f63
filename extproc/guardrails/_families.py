"""Families of credentials: what their tokens look like, from the vendors' own documentation.

The shape of a family is an RE2 pattern. Group `v` is the secret where the pattern needs text before it. `check` judges
facts that no pattern can state. To add a family, add an entry with the vendor's page about the token.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from extproc.guardrails import _checks

# Characters of tokens: A alphanumeric, W with `_` and `-`, H hexadecimal.
_A, _W, _H = "[A-Za-z0-9]", "[A-Za-z0-9_-]", "[0-9a-f]"
_IS = r"""["']?\]?\s{0,3}(?:[:=]|=>|:=|is|to)\s{0,3}["'`]?"""  # between a name and its value


@dataclass(slots=True, frozen=True)
class Family:
    """Credentials of one vendor. `check` sees the matched text; `source` is a page about the format."""

    name: str
    patterns: Sequence[str]
    source: str
    check: Callable[[str], bool] = _checks.varied


def _after(words: str, value: str) -> str:
    """`value` behind a name that holds one of `words`, as in settings, code and headers: `WORDS_key = "value"`."""
    return rf"(?i:(?:{words})[\w .-]{{0,32}}){_IS}(?P<v>{value})(?:[^A-Za-z0-9_+/=-]|$)"


FAMILIES: Final[Sequence[Family]] = (
    Family(
        "aws_access_key",
        (r"\b(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}\b",),
        "docs.aws.amazon.com/IAM/latest/UserGuide/reference_identifiers.html",
    ),
    Family(
        "aws_secret_key",
        (
            r"(?i:aws|amazon|secret[_ -]{0,1}access|secret[_ -]{0,1}key|secretaccesskey|\bsk)[\w .-]{0,24}"
            + _IS
            + r"(?P<v>[A-Za-z0-9/+]{40})(?:[^A-Za-z0-9/+=]|$)",
        ),
        "docs.aws.amazon.com/IAM/latest/UserGuide/id_credentials_access-keys.html",
        _checks.mixed,
    ),
    Family(
        "aws_bedrock_key",
        (r"\bABSK[A-Za-z0-9+/]{100,}={0,2}", r"\bbedrock-api-key-[A-Za-z0-9+/=]{20,}"),
        "docs.aws.amazon.com/bedrock/latest/userguide/api-keys-how.html",
    ),
    Family("gcp_api_key", (rf"\bAIza{_W}{{35}}",), "cloud.google.com/docs/authentication/api-keys"),
    Family(
        "gcp_oauth",
        (r"\bya29\.[A-Za-z0-9_.-]{20,}", rf"\bGOCSPX-{_W}{{28}}", rf"\b1//0{_W}{{40,}}"),
        "developers.google.com/identity/protocols/oauth2",
    ),
    Family(
        "gcp_service_account",
        (rf"""["']?private_key_id["']?\s{{0,3}}:\s{{0,3}}["']?(?P<v>{_H}{{40}})\b""",),
        "cloud.google.com/iam/docs/keys-create-delete",
    ),
    Family(
        "azure_storage_key",
        (
            r"(?i:accountkey|account_key|storage[\w .-]{0,16}key)" + _IS + r"(?P<v>[A-Za-z0-9+/]{86}==)",
            r"(?i:sharedaccesskey|sharedsecret|primarykey|secondarykey)\s{0,2}=\s{0,2}(?P<v>[A-Za-z0-9+/]{43}=)",
            r"\b(?:se|sp|sv|sr)=[^\s\"']{1,400}&sig=(?P<v>[A-Za-z0-9%+/]{40,80}(?:=|%3[Dd])?)",
        ),
        "learn.microsoft.com/azure/storage/common/storage-configure-connection-string",
    ),
    Family(
        "azure_client_secret",
        (r"(?:^|[^A-Za-z0-9_~.-])(?P<v>[A-Za-z0-9_~.]{3}[0-9]Q~[A-Za-z0-9_~.-]{31,34})(?:[^A-Za-z0-9_~-]|$)",),
        "learn.microsoft.com/entra/identity-platform/howto-create-service-principal-portal",
    ),
    Family(
        "azure_key",
        (
            rf"\b{_A}{{52}}JQQJ99{_A}{{10}}AC{_A}{{12,18}}",
            rf"\b{_A}{{76}}AZDO{_A}{{4}}\b",
            rf"\b{_A}{{33,44}}(?:AzFu|AzSe|ACDb|ASt|AIoT|ABa|AEvH|AMC|ACR){_A}{{5,40}}={{0,2}}",
            _after("azure|cognitive|ocp-apim-subscription-key|vsts|devops", rf"{_H}{{32}}|[a-z2-7]{{52}}"),
        ),
        "learn.microsoft.com/purview/sit-defn-azure-devops-personal-access-token",
    ),
    Family(
        "openai",
        (
            rf"\bsk-(?:proj|svcacct|admin|service|None)-{_W}{{20,}}",
            rf"\bsk-{_A}{{20}}T3BlbkFJ{_A}{{20}}",
            rf"\bsk-{_A}{{32,64}}\b",
            rf"\bsk-[a-z0-9]{{2,24}}-{_W}{{20,}}",
        ),
        "platform.openai.com/docs/api-reference/authentication",
        _checks.digits,
    ),
    Family("anthropic", (rf"\bsk-ant-{_W}{{20,}}",), "docs.anthropic.com/en/api/admin-api/apikeys"),
    Family(
        "github",
        (rf"\bgh[opusr]_{_A}{{36,}}", r"\bgithub_pat_[A-Za-z0-9_]{22,}", r"\bghs_[A-Za-z0-9_.-]{36,}"),
        "docs.github.com/authentication/keeping-your-account-and-data-secure/about-authentication-to-github",
    ),
    Family(
        "gitlab",
        (
            r"\bgl(?:pat|dt|rt|rtr|cbt|ptt|ft|imt|agent|oas|soat|ffct|wt)-[A-Za-z0-9_.-]{20,}",
            rf"\bGR1348941{_W}{{20}}",
        ),
        "docs.gitlab.com/security/tokens/#token-prefixes",
    ),
    Family(
        "slack",
        (
            r"\bxox[abceoprs]-[A-Za-z0-9-]{10,}",
            r"\bxox[abe]\.xox[abp]-[A-Za-z0-9-]{10,}",
            r"\bxapp-[0-9]-[A-Z0-9]{5,20}-[0-9]{5,20}-[a-z0-9]{20,}",
            r"\b(?:https://)?hooks\.slack\.com/(?:services|workflows|triggers)/[A-Za-z0-9+/_-]{20,}",
        ),
        "api.slack.com/concepts/token-types",
        _checks.digits,
    ),
    Family(
        "stripe",
        (rf"\b(?:sk|rk)_(?:live|test|prod)_{_A}{{10,}}", r"\bwhsec_[A-Za-z0-9+/=]{24,}"),
        "docs.stripe.com/keys",
    ),
    Family(
        "twilio",
        (
            rf"\bSK{_H}{{32}}\b",
            _after("twilio|auth_?token", rf"{_H}{{32}}"),
            rf"\bAC{_H}{{32}}(?::|[\s,;\"']{{1,4}}(?:\w{{0,24}}{_IS})?)(?P<v>{_H}{{32}})\b",
        ),
        "www.twilio.com/docs/iam/api-keys",
    ),
    Family(
        "sendgrid",
        (rf"\bSG\.{_W}{{16,32}}\.{_W}{{32,64}}",),
        "www.twilio.com/docs/sendgrid/ui/account-and-settings/api-keys",
    ),
    Family(
        "mailgun",
        (rf"\b(?:key|pubkey)-{_H}{{32}}\b", rf"\b{_H}{{32}}-{_H}{{8}}-{_H}{{8}}\b"),
        "documentation.mailgun.com/docs/mailgun/api-reference",
    ),
    Family("mailchimp", (rf"\b{_H}{{32}}-us[0-9]{{1,2}}\b",), "mailchimp.com/developer/marketing/guides/quick-start"),
    Family(
        "npm",
        (rf"\bnpm_{_A}{{36}}\b", r"_(?:authToken|auth)\s{0,2}=\s{0,2}[\"']?(?P<v>[A-Za-z0-9+/_=-]{20,})"),
        "docs.npmjs.com/about-access-tokens",
    ),
    Family("pypi", (rf"\bpypi-(?:AgE|Ag){_W}{{50,}}",), "pypi.org/help/#apitoken"),
    Family(
        "huggingface",
        (rf"\bhf_{_A}{{30,60}}\b", r"\bapi_org_[A-Za-z]{34}\b"),
        "huggingface.co/docs/hub/security-tokens",
    ),
    Family(
        "databricks",
        (rf"\bdapi{_H}{{32}}(?:-[0-9])?\b", rf"\bdose{_H}{{32}}\b"),
        "docs.databricks.com/dev-tools/auth/pat.html",
    ),
    Family(
        "jwt",
        (rf"\bey[IJ]{_W}{{8,}}\.(?:ey[IJ])?{_W}{{8,}}\.{_W}{{10,}}",),
        "datatracker.ietf.org/doc/html/rfc7519",
        _checks.jwt,
    ),
    Family(
        "private_key",
        (
            (
                r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----"
                r"(?:[A-Za-z0-9+/=\s\\:.,()\"_-]{20,}-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----"
                r"|(?:\s|\\n|\\r|\")*[A-Za-z0-9+/=\s\\]{24,})"
            ),
            r"\bPuTTY-User-Key-File-[23]:[^\x00]{0,900}?Private-Lines: [0-9]{1,3}\s[A-Za-z0-9+/=\s]{20,}",
            r"\bAGE-SECRET-KEY-1[0-9A-Z]{50,60}",
        ),
        "datatracker.ietf.org/doc/html/rfc7468",
    ),
    Family(
        "database_url",
        (
            (
                r"(?i)\b(?:postgres|postgresql|mysql|mariadb|mongodb|redis|rediss|valkey|amqps?|mssql|sqlserver|oracle|"
                r"cockroachdb|clickhouse|snowflake|neo4j|bolt|cassandra|couchdb|nats|kafka|ldaps?|smtps?|imaps?|ftps?|sftp|"
                r"ssh|https?|db2|vertica|trino|presto|mqtts?)(?:\+[a-z0-9]{1,16}|ql)?://"
                r"(?:[^\s:@/\"'<>{}$%]|%[0-9a-f]{2}){0,64}:(?P<v>(?:[^\s:@/\"'<>{}]){3,})@"
                r"[a-z0-9\[][a-z0-9._:\[\]-]{1,}"
            ),
            (
                r"(?i)(?:server|host|data source|addr|address|network address|endpoint)\s?=[^\r\n\"']{1,160}?;\s?"
                r"(?:password|pwd)\s?=\s?(?P<v>[^;\s\"']{4,})"
            ),
            r"(?i)\bjdbc:[a-z0-9:]{2,30}//?[^\s\"']{1,200}[?&;]password=(?P<v>[^&;\s\"']{4,})",
        ),
        "www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNSTRING-URIS",
        _checks.password,
    ),
    Family(
        "digitalocean",
        (rf"\bdo[opr]_v1_{_H}{{64}}\b",),
        "docs.digitalocean.com/reference/api/create-personal-access-token",
    ),
    Family(
        "shopify",
        (r"\bshp(?:at|ca|pa|ss|tka|ua)_[0-9a-fA-F]{32}\b",),
        "shopify.dev/docs/apps/build/authentication-authorization",
    ),
    Family(
        "telegram",
        (rf"\b[0-9]{{8,10}}:A[A-Za-z]{_W}{{32,33}}(?:[^A-Za-z0-9_-]|$)",),
        "core.telegram.org/bots/api#authorizing-your-bot",
    ),
    Family(
        "discord",
        (
            rf"\b[MNO][A-Za-z0-9_-]{{22,27}}\.{_W}{{6}}\.{_W}{{27,40}}",
            rf"\b(?:https://)?discord(?:app)?\.com/api/webhooks/[0-9]{{17,20}}/{_W}{{60,80}}",
        ),
        "discord.com/developers/docs/reference#authentication",
        _checks.digits,
    ),
    Family(
        "grafana",
        (
            rf"\bglsa_{_A}{{32}}_[0-9A-Fa-f]{{8}}\b",
            r"\bglc_[A-Za-z0-9+/=]{32,}",
            r"\beyJrIjoi[A-Za-z0-9]{40,}={0,2}",
        ),
        "grafana.com/docs/grafana/latest/administration/service-accounts",
    ),
    Family(
        "vault",
        (r"\bhv[bsr]\.[A-Za-z0-9_-]{24,}", rf"(?i:vault)[\w .-]{{0,24}}{_IS}(?P<v>s\.{_A}{{24}})\b"),
        "developer.hashicorp.com/vault/docs/concepts/tokens",
    ),
    Family(
        "terraform",
        (rf"\b{_A}{{14}}\.atlasv1\.[A-Za-z0-9_=-]{{50,80}}",),
        "developer.hashicorp.com/terraform/cloud-docs/users-teams-organizations/api-tokens",
    ),
    Family(
        "doppler",
        (rf"\bdp\.(?:pt|st|ct|sa|scim|audit)\.(?:[a-z0-9_-]{{2,35}}\.)?{_A}{{40,44}}\b",),
        "docs.doppler.com/reference/auth-token-formats",
    ),
    Family("linear", (rf"\blin_(?:api|oauth)_{_A}{{32,64}}\b",), "linear.app/developers"),
    Family(
        "notion", (rf"\bntn_{_A}{{40,60}}\b", rf"\bsecret_{_A}{{43}}\b"), "developers.notion.com/docs/authorization"
    ),
    Family(
        "airtable", (rf"\bpat{_A}{{14}}\.{_H}{{64}}\b",), "airtable.com/developers/web/guides/personal-access-tokens"
    ),
    Family(
        "atlassian",
        (r"\bAT(?:ATT|CTT|BB)[0-9A-Za-z][A-Za-z0-9_=-]{26,}",),
        "support.atlassian.com/atlassian-account/docs/manage-api-tokens-for-your-atlassian-account",
    ),
    Family(
        "postman",
        (rf"\bPMA[KT]-{_H}{{24}}-{_H}{{34}}\b",),
        "learning.postman.com/docs/developer/postman-api/authentication",
    ),
    Family(
        "newrelic",
        (r"\bNRAK-[A-Z0-9]{27}\b", rf"\bNRJS-{_H}{{19}}\b", rf"\bNRI[IQ]-{_W}{{32}}", rf"\b{_H}{{36}}NRAL\b"),
        "docs.newrelic.com/docs/apis/intro-apis/new-relic-api-keys",
    ),
    Family("sentry", (r"\bsntry[su]_[A-Za-z0-9+/=_]{40,}",), "docs.sentry.io/account/auth-tokens"),
    Family(
        "square",
        (rf"\bEAAA[lE]{_W}{{55,65}}", rf"\bsq0(?:atp|csp|idp)-{_W}{{22,43}}"),
        "developer.squareup.com/docs/build-basics/access-tokens",
    ),
    Family(
        "planetscale",
        (r"\bpscale_(?:tkn|pw|oauth)_[A-Za-z0-9_=.-]{32,64}",),
        "planetscale.com/docs/concepts/planetscale-api-oauth-applications",
    ),
    Family("rubygems", (rf"\brubygems_{_H}{{48}}\b",), "guides.rubygems.org/api-key-scopes"),
    Family(
        "supabase",
        (rf"\bsbp_(?:v0_)?{_H}{{40}}\b", rf"\bsb_secret_{_W}{{22,50}}"),
        "supabase.com/docs/guides/api/api-keys",
    ),
    Family(
        "model_provider",
        (
            rf"\bgsk_{_A}{{40,60}}\b",
            rf"\bxai-{_A}{{60,}}\b",
            rf"\bpplx-{_A}{{40,60}}\b",
            rf"\br8_{_A}{{37}}\b",
            rf"\bfw_{_A}{{20,40}}\b",
            rf"\blsv2_(?:pt|sk)_{_H}{{32}}_{_H}{{10}}\b",
            rf"\btvly-(?:dev-|prod-)?{_A}{{20,50}}\b",
            rf"\bpa-{_W}{{43}}\b",
            rf"\bnvapi-{_W}{{50,80}}",
            rf"\bpcsk_{_A}{{5,8}}_{_A}{{60,80}}",
            rf"\bcsk-{_A}{{40,60}}\b",
            _after("cohere|mistral|together|co_api", rf"{_A}{{32}}|{_A}{{40}}|{_H}{{64}}"),
        ),
        "console.groq.com/docs, docs.x.ai, docs.perplexity.ai, replicate.com/docs/topics/security/api-tokens",
        _checks.digits,
    ),
    Family("docker", (rf"\bdckr_(?:pat|oat)_{_W}{{27,40}}",), "docs.docker.com/security/access-tokens"),
    Family(
        "cloudflare",
        (
            rf"\bv1\.0-{_H}{{24}}-{_H}{{146}}\b",
            rf"\bcfut_{_W}{{40,80}}",
            _after("cloudflare|cf_api|x-auth-key", rf"{_W}{{40}}|{_H}{{37}}"),
        ),
        "developers.cloudflare.com/fundamentals/api/get-started/keys",
        _checks.digits,
    ),
    Family(
        "datadog",
        (_after("datadog|dd_api|dd-api|dd_app|dd-application", rf"{_H}{{32}}|{_H}{{40}}"),),
        "docs.datadoghq.com/account_management/api-app-keys",
        _checks.digits,
    ),
    Family(
        "okta",
        (rf"\bSSWS\s{{1,3}}(?P<v>00{_W}{{40}})", _after("okta", rf"00{_W}{{40}}")),
        "developer.okta.com/docs/guides/create-an-api-token",
    ),
    Family("dropbox", (rf"\bsl\.(?:u\.)?{_W}{{130,}}",), "developers.dropbox.com/oauth-guide"),
    Family(
        "facebook",
        (rf"\bEAA[A-Z]{_A}{{60,}}\b",),
        "developers.facebook.com/docs/facebook-login/guides/access-tokens",
    ),
    Family(
        "twitter",
        (r"\bA{16,24}[A-Za-z0-9%+/=]{70,}",),
        "docs.x.com/resources/fundamentals/authentication",
        _checks.digits,
    ),
    Family(
        "dynatrace",
        (r"\bdt0[a-z][0-9]{2}\.[A-Z0-9]{24}\.[A-Z0-9]{64}\b",),
        "docs.dynatrace.com/docs/dynatrace-api/basics/dynatrace-api-authentication",
    ),
    Family(
        "build_service",
        (
            rf"\bCCIP(?:AT|RJ)_{_W}{{20,30}}_{_H}{{40}}\b",
            rf"\bbk(?:ua|at|ct)_{_H}{{40}}\b",
            rf"\bpul-{_H}{{40}}\b",
            rf"\bsq[apu]_{_H}{{40}}\b",
            rf"\b(?:sgp|sgd)_(?:(?:{_H}{{16}}|local)_)?{_H}{{40}}\b",
            rf"\bnfp_{_A}{{36}}\b",
            rf"\brnd_{_A}{{28,32}}\b",
            rf"\bpn[ub]_{_A}{{36}}\b",
            r"\bCLOJARS_[0-9A-Fa-f]{60}\b",
            r"\boy2[a-z0-9]{43}\b",
            rf"\bcio{_A}{{32}}\b",
            rf"\bAKC[a-z0-9]{{1,2}}{_A}{{60,80}}\b",
            rf"\bHRKU-(?:AA)?{_W}{{36,60}}",
            r"\bfm[12][ar]?_[A-Za-z0-9+/=_-]{40,}",
            r"\bFlyV1 [A-Za-z0-9+/=_,-]{40,}",
        ),
        "circleci.com/docs/managing-api-tokens, buildkite.com/docs/apis/managing-api-tokens, doc.rust-lang.org/cargo",
    ),
    Family(
        "business_service",
        (
            rf"\bfigd_{_W}{{38,44}}",
            rf"\bpat-(?:na|eu|ap)[0-9]-{_H}{{8}}-{_H}{{4}}-{_H}{{4}}-{_H}{{4}}-{_H}{{12}}\b",
            rf"\bxkeysib-{_H}{{64}}-{_A}{{16}}\b",
            rf"\bEZ[AT]K{_A}{{54}}\b",
            rf"\bshippo_(?:live|test)_{_H}{{40}}\b",
            rf"\bduffel_(?:test|live)_{_W}{{43}}",
            rf"\bFLWSECK(?:_TEST)?-{_A}{{12,40}}(?:-X)?\b",
            rf"\bCFPAT-{_W}{{43}}",
            rf"\bfio-u-{_W}{{64}}",
            r"\brdme_[a-z0-9]{70}\b",
            rf"\btfp_{_W}{{44}}",
            rf"\baio_{_A}{{28}}\b",
            r"\bops_eyJ[A-Za-z0-9+/=]{80,}",
            r"\bA3-[A-Z0-9]{6}-(?:[A-Z0-9]{5,11}-?){4,6}\b",
            rf"\bLTAI{_A}{{12,30}}\b",
            rf"\bAKID{_A}{{32}}\b",
            r"\bt1\.[A-Z0-9a-z_-]{50,}={0,2}\.[A-Za-z0-9_-]{40,}",
            rf"\bAQVN{_W}{{35,38}}",
            rf"\b(?:live|test)_pub_{_H}{{31}}\b",
            r"\baccess_token\$(?:production|sandbox)\$[0-9a-z]{16}\$[0-9a-f]{32}",
            r"\bp8e-[a-z0-9]{32}\b",
            rf"\bphx_{_W}{{40,60}}",
            rf"\bre_{_A}{{8}}_{_A}{{16,32}}\b",
            r"\b00D[A-Za-z0-9]{12,15}![A-Za-z0-9_.]{60,}",
        ),
        "developers.hubspot.com, developers.brevo.com, docs.easypost.com, www.figma.com/developers/api#access-tokens",
        _checks.digits,
    ),
    Family(
        "user_password",
        (r"\bcurl\s[^\r\n]{0,400}?(?:-u|--user)[ =]{1,2}[\"']?[^\s:\"']{1,64}:(?P<v>[^\s\"'@<>{}$]{6,})",),
        "curl.se/docs/manpage.html#-u",
        _checks.password,
    ),
    Family(
        "authorization",
        (
            r"(?i:authorization|proxy-authorization)[\"']?\s{0,3}[:=]\s{0,3}[\"']?(?i:basic)\s{1,3}(?P<v>[A-Za-z0-9+/]{8,}={0,2})",
            (
                r"(?i:authorization|x-api-key|api-key|x-auth-token|private-token)[\"']?\s{0,3}[:=]\s{0,3}[\"']?(?:(?i:bearer|token|apikey)\s{1,3})?"
                r"(?P<v>[A-Za-z0-9._~+/=-]{20,})"
            ),
            r"\b(?i:bearer)\s{1,3}(?P<v>[A-Za-z0-9._~+/=-]{24,})",
        ),
        "datatracker.ietf.org/doc/html/rfc9110#section-11",
        _checks.credential,
    ),
    Family(
        "assignment",
        (
            (
                r"(?i:api[_-]?key|apikey|secret|token|passwd|password|pwd|access[_-]?key|auth[_-]?key|credential|client[_-]?secret|"
                r"private[_-]?key|encryption[_-]?key|signing[_-]?key|passphrase)[\w-]{0,16}[\"']?\s{0,3}(?:[:=]|=>|:=)\s{0,3}[\"'`]?"
                r"(?P<v>[A-Za-z0-9_.~+/=!@#$%^&*-]{10,})"
            ),
        ),
        "cwe.mitre.org/data/definitions/798.html",
        _checks.generic,
    ),
)

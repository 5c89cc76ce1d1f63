"""The Helm chart: rendered by Helm, valid, and the same pod as the manifests for kustomize."""

from __future__ import annotations

import copy
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from extproc.settings import config
from extproc.words.values import offline
from tests.shapes import unknown
from tests.test_k8s import BASE, FLEET, MOCK, ROOT, name_of, only, plain

CHART = ROOT / "k8s/chart"
HELM = shutil.which("helm") or shutil.which(str(Path(sys.executable).parent / "helm"))
VERSIONS = ("1.30", "1.33", kubernetes_validate.latest_version())
# The fields of custom resources that the chart uses, from their definitions: prometheus-operator v1, Gateway API v1 and
# cert-manager v1. Metadata is checked elsewhere; `...` is anything.
LABELS = {"matchLabels": ...}
CUSTOM: Mapping[str, Any] = {
    "monitoring.coreos.com/v1 ServiceMonitor": {
        "selector": LABELS,
        "endpoints": [{"port": str, "path": str, "interval": str}],
    },
    "monitoring.coreos.com/v1 PodMonitor": {
        "selector": LABELS,
        "podMetricsEndpoints": [{"port": str, "path": str, "interval": str}],
    },
    "monitoring.coreos.com/v1 PrometheusRule": {
        "groups": [
            {
                "name": str,
                "rules": [
                    {"alert": str, "record": str, "expr": str, "for": str, "labels": ..., "annotations": ...},
                ],
            }
        ]
    },
    "gateway.networking.k8s.io/v1 HTTPRoute": {
        "parentRefs": [{"name": str, "namespace": str}],
        "hostnames": [str],
        "rules": [
            {
                "matches": [{"path": {"type": str, "value": str}}],
                "timeouts": {"request": str},
                "backendRefs": [{"name": str, "port": int}],
            }
        ],
    },
    "cert-manager.io/v1 Certificate": {
        "secretName": str,
        "issuerRef": {"kind": str, "name": str},
        "dnsNames": [str],
        "duration": str,
        "renewBefore": str,
        "privateKey": {"algorithm": str, "size": int, "rotationPolicy": str},
    },
}

pytestmark = pytest.mark.skipif(HELM is None, reason="needs helm: make helm")


def helm(*arguments: str | Path, version: str = "1.33", fails: bool = False) -> str:
    more = ["--namespace", "extproc", "--kube-version", f"{version}.0"[:6]] if arguments[0] == "template" else []
    command = [str(HELM), *map(str, arguments), *more]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode != 0) is fails, done.stderr
    return done.stderr if fails else done.stdout


def rendered(name: str, *more: str, version: str = "1.33") -> list[dict[str, Any]]:
    text = helm("template", "extproc", CHART, "-f", CHART / f"ci/{name}-values.yaml", *more, version=version)
    return [document for document in yaml.safe_load_all(text) if document]


@pytest.mark.parametrize("name", ["mock", "fleet"])
def test_every_manifest_of_the_chart_is_valid_on_every_supported_kubernetes(name: str) -> None:
    assert "0 chart(s) failed" in helm("lint", CHART, "-f", CHART / f"ci/{name}-values.yaml")
    found = rendered(name)
    assert len({(document["kind"], name_of(document)) for document in found}) == len(found)
    for document in found:
        kind = f"{document['apiVersion']} {document['kind']}"
        assert document["metadata"]["namespace"] == "extproc", kind
        if kind in CUSTOM:
            assert unknown(document["spec"], CUSTOM[kind]) == [], kind
            continue
        for version in VERSIONS:
            kubernetes_validate.validate(document, version, strict=True)
    kinds = {f"{document['apiVersion']} {document['kind']}" for document in found}
    assert name == "mock" or set(CUSTOM) <= kinds


def settings(found: list[dict[str, Any]]) -> config.Settings:
    [text] = [document["data"]["gateway.yaml"] for document in found if "gateway.yaml" in document.get("data", {})]
    with offline():
        return config.parse(text)


def test_the_settings_of_a_release_load_and_fit_its_pod() -> None:
    found = rendered("fleet")
    loaded = settings(found)
    assert (loaded.listener.port, loaded.status.port, loaded.admin.port) == (10000, 9090, 9091)
    assert (loaded.admin.address, str(loaded.admin.token)) == ("0.0.0.0", "file:/run/secrets/extproc/admin-token")
    assert loaded.processor.path == "/run/extproc/extproc.sock"
    for name in ("render", "processor"):  # 2 in the values
        assert container(found, name)["env"] == [{"name": "EXTPROC_WORKERS", "value": "2"}]
    assert loaded.budgets[1].limit == 10_000_000  # not 1e+07
    assert list(loaded.guardrails[0].on) == ["output"]  # not the key `true` of YAML 1.1
    assert (loaded.stores.ledger_keep, loaded.listener.tls is not None) == (366 * 86400, True)
    fleet = yaml.safe_load((FLEET / "gateway.yaml").read_text())["stores"]
    assert (loaded.stores.counters, loaded.stores.ledger) == (fleet["counters"], fleet["ledger"])
    spec = only(found, "Deployment")["spec"]["template"]["spec"]
    tls = {volume["name"]: volume for volume in spec["volumes"]}["tls"]["secret"]["secretName"]
    assert tls == only(found, "Certificate")["spec"]["secretName"]
    mounts = container(found, "envoy")["volumeMounts"]
    assert [mount["mountPath"] for mount in mounts] == ["/run/extproc", "/run/envoy", "/run/tls"]
    [certificate] = [volume["secret"] for volume in spec["volumes"] if volume["name"] == "certificate"]
    assert (certificate["secretName"], certificate["items"]) == (tls, [{"key": "tls.crt", "path": "tls.crt"}])
    shown = {mount["name"] for mount in container(found, "processor")["volumeMounts"]}
    assert {"certificate", "tls"} & shown == {"certificate"}, "the private key is Envoy's alone"


def bare(found: list[dict[str, Any]]) -> Any:
    """The Deployment without labels and the order of ports."""
    spec = copy.deepcopy(only(found, "Deployment")["spec"])
    del spec["selector"], spec["template"]["metadata"]
    pod = spec["template"]["spec"]
    for entry in pod.get("topologySpreadConstraints", []):
        del entry["labelSelector"]
    for entry in [*pod["initContainers"], *pod["containers"]]:
        entry.get("ports", []).sort(key=lambda port: port["name"])
    return spec


def container(found: list[dict[str, Any]], name: str) -> Any:
    pod = only(found, "Deployment")["spec"]["template"]["spec"]
    [entry] = [entry for entry in [*pod["initContainers"], *pod["containers"]] if entry["name"] == name]
    return entry


def test_the_pod_of_the_chart_is_that_of_the_manifests(tmp_path: Path) -> None:
    base = helm("template", "extproc", CHART, "--set-file", f"gateway={BASE / 'gateway.yaml'}")
    assert bare(list(yaml.safe_load_all(base))) == bare(plain(BASE))
    assert container(rendered("mock"), "mock") == container(plain(MOCK), "mock")

    values = tmp_path / "values.yaml"
    spread = only(plain(FLEET), "Deployment")["spec"]["template"]["spec"]["topologySpreadConstraints"]
    spread = [{key: value for key, value in entry.items() if key != "labelSelector"} for entry in spread]
    values.write_text(yaml.safe_dump({"replicas": 3, "topologySpread": spread}))
    fleet = helm("template", "extproc", CHART, "-f", values, "--set-file", f"gateway={FLEET / 'gateway.yaml'}")
    found = list(yaml.safe_load_all(fleet))
    assert bare(found) == bare(plain(FLEET))
    assert settings(found) == settings([{"data": {"gateway.yaml": (FLEET / "gateway.yaml").read_text()}}])
    policies = [document["spec"] for document in plain(FLEET) if document["kind"] == "NetworkPolicy"]
    ours = only(found, "NetworkPolicy")["spec"]
    for way in ("ingress", "egress"):
        theirs = [rule for policy in policies for rule in policy[way]]
        assert sorted(json.dumps(rule, sort_keys=True) for rule in ours[way]) == sorted(
            json.dumps(rule, sort_keys=True) for rule in theirs
        )


def test_pools_get_a_token_of_the_cluster_for_the_processor_alone_and_the_network_to_their_servers() -> None:
    peers = "pools.peers[0].podSelector.matchLabels.app=vllm"
    more = ("--set", "pools.rbac=true", "--set", "pools.namespaces={models,extproc}", "--set", peers)
    found = rendered("mock", *more)
    for document in found:
        for version in VERSIONS:
            kubernetes_validate.validate(document, version, strict=True)
    account = only(found, "ServiceAccount")["metadata"]["name"]
    assert only(found, "Deployment")["spec"]["template"]["spec"]["serviceAccountName"] == account
    roles = [document for document in found if document["kind"] == "Role"]
    assert [role["metadata"]["namespace"] for role in roles] == ["models", "extproc"]
    assert all(rule["verbs"] == ["list", "watch"] for role in roles for rule in role["rules"])
    bindings = [document["subjects"][0] for document in found if document["kind"] == "RoleBinding"]
    assert {(one["name"], one["namespace"]) for one in bindings} == {(account, "extproc")}
    mounted = {
        name: [each["name"] for each in container(found, name)["volumeMounts"]] for name in ("processor", "envoy")
    }
    assert ("account" in mounted["processor"], "account" in mounted["envoy"]) == (True, False)
    egress = only(found, "NetworkPolicy")["spec"]["egress"]
    assert {
        "to": [{"podSelector": {"matchLabels": {"app": "vllm"}}}],
        "ports": [{"protocol": "TCP", "port": 8000}],
    } in egress
    assert not [document for document in rendered("mock") if document["kind"] in ("Role", "ServiceAccount")]


def test_the_ports_of_endpoint_pickers_are_open_to_those_who_may_ask(tmp_path: Path) -> None:
    values, pool = (
        tmp_path / "values.yaml",
        "  llama: {kind: vllm, base_url: 'http://a:8000/v1', pool: {serve: '0.0.0.0:9002'}}",
    )
    values.write_text(yaml.safe_dump({"gateway": f"providers:\n{pool}\nmodels: {{m: {{provider: llama}}}}\n"}))
    found = rendered("mock", "-f", str(values), "--set", "pools.askers[0].podSelector.matchLabels.app=envoy")
    [service] = [each for each in found if each["kind"] == "Service" and each["metadata"]["name"].endswith("-picker")]
    kubernetes_validate.validate(service, VERSIONS[-1], strict=True)
    assert service["spec"]["ports"] == [{"name": "grpc-9002", "port": 9002, "targetPort": 9002}]
    assert {
        "from": [{"podSelector": {"matchLabels": {"app": "envoy"}}}],
        "ports": [{"protocol": "TCP", "port": 9002}],
    } in only(found, "NetworkPolicy")["spec"]["ingress"]
    assert not [each for each in rendered("mock") if each["metadata"]["name"].endswith("-picker")]


def test_values_that_cannot_work_are_refused_with_a_sentence() -> None:
    mock = ("-f", str(CHART / "ci/mock-values.yaml"))
    fleet = ("-f", str(CHART / "ci/fleet-values.yaml"))
    base = ("--set-file", f"gateway={BASE / 'gateway.yaml'}")
    for arguments, sentence in (
        ((), "gateway needs providers and models, or mcp"),
        (("--set-string", "gateway=a: ]"), "gateway is not YAML"),
        ((*mock, "--set", "replicas=2"), "several replicas need redis.url and postgresql.url"),
        ((*mock, "--set", "autoscaling.enabled=true"), "several replicas need redis.url and postgresql.url"),
        (
            (*fleet, "--set", "autoscaling.inFlight=0", "--set", "autoscaling.cpu=0"),
            "autoscaling needs inFlight or cpu",
        ),
        ((*mock, "--set", "ingress.enabled=true"), "ingress.host is the name that clients use"),
        ((*mock, "--set", "redis.url=redis://r:6379/0", *base), "has the section stores"),
        ((*fleet, "--set", "autoscaling.minReplicas=20"), "autoscaling.minReplicas is above maxReplicas"),
        ((*fleet, "--set", "tls.certManager.issuerRef=null"), "issuerRef names an Issuer"),
        ((*fleet, "--set", "tls.enabled=false"), "tls.certManager.enabled needs tls.enabled"),
        ((*mock, "--set", "postgresql.url=postgresql://u@p/db"), "verify-full needs postgresql.caKey"),
        ((*mock, "--set", "httpRoute.enabled=true"), "httpRoute.parentRefs names a Gateway"),
        ((*mock, "--set", "disruptionBudget.maxUnavailable=half"), "Does not match pattern"),
        (("--set-file", f"gateway={ROOT / 'gateway.yaml'}"), "listener.address is loopback"),
        ((*mock, "--set", "replica=2"), "Additional property replica is not allowed"),
        ((*mock, "--set", "image.digest=latest"), "Does not match pattern"),
    ):
        assert sentence in helm("template", "extproc", CHART, *arguments, fails=True)


PLAIN = "providers: {sandbox: {kind: mock}}\nmodels: {stub: {provider: sandbox}}\n"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (PLAIN + "status: {port: 1}", "status.port is 9090"),
        (PLAIN + "listener: {address: 127.0.0.2}", "listener.address is loopback"),
        (PLAIN + "admin:", "admin must be a mapping"),
        (PLAIN + "listener: 0.0.0.0:10000", "listener must be a mapping"),
        (PLAIN + "listener: {tls: {certificate: 'file:/run/tls/tls.crt'}}", "set the value tls.enabled, too"),
        (PLAIN + "stores: {ledger_keep: 30d}", "stores has no counters"),
        (PLAIN + "stores: {counters: 'sqlite:/data/c.db', ledger: 'memory:'}", "stores.counters is a file outside"),
        (
            PLAIN + "stores: {counters: 'redis://r', ledger: 'postgresql://u@p/d', cache: 'sqlite:c.db'}",
            "stores.cache is a file, and the pods of a fleet have no volume",
        ),
        (PLAIN + "admin: {token: 'env:TOKEN'}", '"env:TOKEN" is an environment variable'),
        (PLAIN + "consumers: [{name: a, keys: [{env: KEY}]}]", "env: KEY is an environment variable"),
        (PLAIN + "...", "one document in block style"),
        (PLAIN + "---\n" + PLAIN, "one document in block style"),
        ("  " + PLAIN.replace("\n", "\n  "), "one document in block style"),
        ('{"providers": {"a": {}}, "models": {"b": {}}}', "one document in block style"),
    ],
    ids=lambda part: "" if "providers" in part else part,
)
def test_settings_that_do_not_fit_the_pod_are_refused_with_a_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    (tmp_path / "gateway.yaml").write_text(text)
    error = helm("template", "extproc", CHART, "--set-file", f"gateway={tmp_path / 'gateway.yaml'}", fails=True)
    assert sentence in error


@pytest.mark.parametrize(
    "text",
    [
        PLAIN,
        "---\n" + PLAIN.rstrip(),
        PLAIN.replace("\n", "\r\n"),
        "    # A comment\n" + PLAIN,
        PLAIN + "teams: {blue: {labels: {env: prod}}} # {{ braces }}\n\n",
    ],
    ids=["plain", "document start", "CRLF", "indented comment", "braces"],
)
def test_settings_reach_the_pod_as_they_are_written(tmp_path: Path, text: str) -> None:
    (tmp_path / "gateway.yaml").write_text(text, newline="")
    found = helm("template", "extproc", CHART, "--set-file", f"gateway={tmp_path / 'gateway.yaml'}")
    documents = [document for document in yaml.safe_load_all(found) if document]
    assert settings(documents).stores.counters == "sqlite:/var/lib/extproc/counters.db"
    [whole] = [document["data"]["gateway.yaml"] for document in documents if "gateway.yaml" in document.get("data", {})]
    assert whole.startswith(text.replace("\r", "").rstrip())


@pytest.mark.parametrize(
    ("admin", "opened"),
    [
        ("admin: {address: 0.0.0.0, oidc: {issuer: 'https://id.example.com', client_id: x}}", True),
        ("admin: {address: 127.0.0.1, port: 9091}", False),
    ],
    ids=["OIDC", "loopback"],
)
def test_the_admin_api_has_a_service_where_the_settings_open_it(tmp_path: Path, admin: str, opened: bool) -> None:
    (tmp_path / "gateway.yaml").write_text(PLAIN + admin)
    text = helm("template", "extproc", CHART, "--set-file", f"gateway={tmp_path / 'gateway.yaml'}")
    found = [document for document in yaml.safe_load_all(text) if document]
    assert ("extproc-admin" in {name_of(document) for document in found}) is opened
    ports = {rule["ports"][0]["port"] for rule in only(found, "NetworkPolicy")["spec"]["ingress"]}
    assert (9091 in ports) is opened
    assert (9091 in {port["containerPort"] for port in container(found, "processor")["ports"]}) is opened


@pytest.mark.parametrize(
    "value", ["redis.url=redis://r:6379/0", "postgresql.url=postgresql://u@p/db,postgresql.caKey=ca"], ids=str
)
def test_one_store_in_the_network_is_reachable_too(value: str) -> None:
    ports = [rule["ports"] for rule in only(rendered("mock", "--set", value), "NetworkPolicy")["spec"]["egress"]]
    assert [{"protocol": "TCP", "port": 6379}, {"protocol": "TCP", "port": 5432}] in ports


def test_the_ports_of_the_stores_are_those_of_their_addresses() -> None:
    for url, more in (("rediss://u:1@cache.example:6380/0", [6380]), ("redis://r:6379", []), ("redis://u:1@r/0", [])):
        egress = only(rendered("mock", "--set", f"redis.url={url}"), "NetworkPolicy")["spec"]["egress"]
        assert [port["port"] for port in egress[-1]["ports"]] == [6379, 5432, *more]


def test_an_empty_list_of_peers_opens_a_port_to_none(tmp_path: Path) -> None:
    """A rule with an empty `from` would open it to all."""
    everything = only(rendered("fleet"), "NetworkPolicy")["spec"]
    for name in ("clients", "scrapers", "operators", "dns", "stores"):
        (tmp_path / "empty.yaml").write_text(yaml.safe_dump({"networkPolicy": {name: []}}))
        found = only(rendered("fleet", "-f", str(tmp_path / "empty.yaml")), "NetworkPolicy")["spec"]
        assert len([*found["ingress"], *found["egress"]]) == len([*everything["ingress"], *everything["egress"]]) - 1
        assert all(rule.get("from", rule.get("to")) and rule["ports"] for rule in found["ingress"] + found["egress"])


def test_pods_are_replaced_when_a_value_changes_that_binds_at_their_start() -> None:
    def template(*more: str) -> Any:
        return only(rendered("fleet", *more), "Deployment")["spec"]["template"]

    for value in ("redis.url=rediss://other", "postgresql.caKey=other", "ledgerKeep=30d", "admin.tokenKey=other"):
        assert template("--set", value) != template(), value
    assert template("--set", "gateway=providers: {a: 1}\nmodels: {b: 1}") == template()


def test_names_with_wildcards_and_of_digits_stay_strings() -> None:
    found = rendered(
        "fleet",
        *("--set", "ingress.host=*.example.com,tls.certManager.dnsNames={*.example.com},tls.secretName=t"),
        *("--set-string", "priorityClassName=1,serviceAccount.name=2,secret.name=3,ingress.className=4"),
    )
    for document in found:
        if f"{document['apiVersion']} {document['kind']}" not in CUSTOM:
            kubernetes_validate.validate(document, "1.33", strict=True)
    assert only(found, "Ingress")["spec"]["rules"][0]["host"] == "*.example.com"
    assert only(found, "Certificate")["spec"]["dnsNames"][-1] == "*.example.com"


def test_a_release_takes_the_ways_of_a_house(tmp_path: Path) -> None:
    values = {
        "fullnameOverride": "ai",
        "commonLabels": {"owner": "platform"},
        "imageRegistry": "registry.example.com/mirror/",
        "secret": {"more": ["provider-keys"]},
        "service": {"type": "LoadBalancer", "loadBalancerClass": "inside", "loadBalancerSourceRanges": ["10.0.0.0/8"]},
        "ingress": {"hosts": ["llm.example.com"]},
        "startupSeconds": 300,
        "podSecurityContext": {"runAsUser": None, "runAsGroup": None, "fsGroup": None},
        "extra": {
            "env": [{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}],
            "envFrom": [{"secretRef": {"name": "variables"}}],
            "volumes": [{"name": "authority", "configMap": {"name": "ca"}}],
            "volumeMounts": [{"name": "authority", "mountPath": "/run/ca", "readOnly": True}],
            "containers": [{"name": "beside", "image": "other:1"}],
        },
        "dnsConfig": {"options": [{"name": "ndots", "value": "1"}]},
        "hostAliases": [{"ip": "10.0.0.1", "hostnames": ["stores"]}],
    }
    (tmp_path / "house.yaml").write_text(yaml.safe_dump(values))
    (tmp_path / "gateway.yaml").write_text(PLAIN + "consumers: [{name: a, keys: [{env: KEY}]}]\n")
    files = ("-f", str(tmp_path / "house.yaml"), "--set-file", f"gateway={tmp_path / 'gateway.yaml'}")
    found = rendered("fleet", *files)
    for document in found:
        assert name_of(document).startswith("ai") or name_of(document) == "extproc-note"
        assert document["metadata"].get("labels", {"owner": "platform"})["owner"] == "platform"
        if f"{document['apiVersion']} {document['kind']}" not in CUSTOM:
            kubernetes_validate.validate(document, "1.33", strict=True)
    pod = only(found, "Deployment")["spec"]["template"]["spec"]
    images = {each["image"] for each in (*pod["initContainers"], *pod["containers"][:1])}
    assert {image.rpartition("/")[0] for image in images} == {
        "registry.example.com/mirror",
        "registry.example.com/mirror/envoyproxy",
    }
    assert not {"runAsUser", "runAsGroup", "fsGroup"} & set(pod["securityContext"])
    for name in ("render", "processor", "envoy", "drain"):
        assert not {"runAsUser", "runAsGroup"} & set(container(found, name)["securityContext"])
        assert any(mount["name"] == "authority" for mount in container(found, name)["volumeMounts"]) is (
            name != "drain"
        )
    assert container(found, "processor")["env"][-1]["name"] == "HTTPS_PROXY"
    assert container(found, "processor")["startupProbe"]["failureThreshold"] == 300
    [keys] = [volume["projected"]["sources"] for volume in pod["volumes"] if volume["name"] == "keys"]
    assert [source["secret"]["name"] for source in keys] == ["extproc-keys", "provider-keys"]
    assert [rule["host"] for rule in only(found, "Ingress")["spec"]["rules"]] == ["ai.example.com", "llm.example.com"]
    assert [each["name"] for each in pod["containers"]] == ["drain", "beside"]
    assert settings(found).consumers[0].name == "a"


def test_alerts_and_dashboards_are_those_of_k8s_monitoring() -> None:
    found = rendered("fleet")
    rules = yaml.safe_load((ROOT / "k8s/monitoring/alerts.yaml").read_text())
    assert only(found, "PrometheusRule")["spec"] == rules
    given = rendered("fleet", "--set", "metrics.rules.runbook=https://wiki.example.com/ai#{alert}")
    for group, plainly in zip(only(given, "PrometheusRule")["spec"]["groups"], rules["groups"], strict=True):
        for rule, without in zip(group["rules"], plainly["rules"], strict=True):
            if "alert" in rule:
                assert rule["annotations"].pop("runbook_url") == f"https://wiki.example.com/ai#{rule['alert']}"
                assert without["annotations"].pop("runbook_url").endswith(f"/docs/operations.md#{rule['alert']}")
            assert rule == without
    [dashboards] = [document["data"] for document in found if name_of(document) == "extproc-dashboards"]
    sources = {path.name: path.read_text() for path in (ROOT / "k8s/monitoring/dashboards").glob("*.json")}
    assert dashboards == sources
    hpa = only(found, "HorizontalPodAutoscaler")["spec"]["metrics"][0]["pods"]["metric"]["name"]
    assert f'"{hpa}"' in (ROOT / "extproc/operate/telemetry/groups.py").read_text()


def test_a_copy_without_symbolic_links_says_so_and_a_package_needs_none(tmp_path: Path) -> None:
    missing = [path.name for path in CHART.iterdir() if path.is_symlink() and not path.exists()]
    assert missing == [], "links of the chart lead nowhere: check out with core.symlinks=true"
    copy = tmp_path / "llm-extproc"  # as git makes it where links cannot be: files with the links' targets
    shutil.copytree(CHART, copy, symlinks=True)
    for link in [path for path in copy.iterdir() if path.is_symlink()]:
        text = str(link.readlink())
        link.unlink()
        link.write_text(text)
    for part in ("rules", "dashboards"):
        values = ("-f", CHART / "ci/mock-values.yaml", "--set", f"metrics.{part}.enabled=true")
        assert "with symbolic links" in helm("template", "extproc", copy, *values, fails=True)
    helm("package", CHART, "--destination", tmp_path)
    [package] = tmp_path.glob("*.tgz")
    values = ("-f", CHART / "ci/fleet-values.yaml")
    assert helm("template", "extproc", package, *values) == helm("template", "extproc", CHART, *values)


@pytest.mark.parametrize(
    ("limit", "resource"),
    [("limits.cpu=3", "limits.cpu"), ("limits.cpu=null", "requests.cpu"), ("limits=null", "requests.cpu")],
    ids=str,
)
def test_the_workers_of_a_pod_follow_its_own_cores_and_never_the_nodes(limit: str, resource: str) -> None:
    found = rendered("mock", "--set", f"resources.processor.{limit}")
    for name in ("render", "processor"):
        [entry] = container(found, name)["env"]
        assert entry["valueFrom"]["resourceFieldRef"] == {"containerName": "processor", "resource": resource}


def test_a_processor_without_a_size_has_one_worker_because_kubernetes_would_say_0() -> None:
    for size in ("processor=null", "processor.limits=null,resources.processor.requests=null"):
        found = rendered("mock", "--set", f"resources.{size}")
        assert container(found, "processor")["env"] == [{"name": "EXTPROC_WORKERS", "value": "1"}]


def test_a_digest_pins_each_image() -> None:
    digest = "sha256:" + "a" * 64
    found = rendered("mock", "--set", f"image.digest={digest}", "--set", f"envoy.image.digest={digest}")
    images = re.findall(r"'image': '([^']+)'", str(only(found, "Deployment")))
    assert {image.partition("@")[2] for image in images} == {digest}


def test_every_value_is_in_the_schema() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    assert set(schema["properties"]) - {"global"} == set(values)


def test_the_values_of_the_documentation_render() -> None:
    text = (ROOT / "docs/helm.md").read_text() + (ROOT / "docs/operations.md").read_text()
    snippets = re.findall(r"^```yaml\n(# values.yaml\n.*?)^```", text, re.DOTALL | re.MULTILINE)
    given = CHART / "ci/fleet-values.yaml"
    for snippet in snippets:
        done = subprocess.run(
            [str(HELM), "template", "x", str(CHART), "--kube-version", "1.33.0", "-f", str(given), "-f", "-"],
            input=snippet,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
    assert len(snippets) == 5

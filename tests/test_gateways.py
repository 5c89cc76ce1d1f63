"""The manifests for Envoy Gateway and Istio: known fields, valid pods, the filter of `extproc envoy --attach`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from extproc.cli.envoy import check_attach
from extproc.envoy.envoy_config import attach
from extproc.settings import config
from extproc.words.values import offline
from tests.shapes import unknown
from tests.test_chart import CUSTOM, HELM, rendered
from tests.test_k8s import name_of, only

ROOT = Path(__file__).parent.parent
GATEWAYS = ROOT / "k8s/gateways"
ENVOY_GATEWAY = list(yaml.safe_load_all((GATEWAYS / "envoy-gateway.yaml").read_text()))
ISTIO = list(yaml.safe_load_all((GATEWAYS / "istio.yaml").read_text()))
PROCESSOR, ENVOY_GATEWAY_SHARED, KGATEWAY = (
    list(yaml.safe_load_all((GATEWAYS / f"{name}.yaml").read_text()))
    for name in ("processor", "envoy-gateway-shared", "kgateway")
)
SHARED = GATEWAYS / "shared.yaml"
DEFINITIONS = os.environ.get("EXTPROC_CRDS", "")
# The fields that the manifests use, from the definitions of Envoy Gateway, Istio and Gateway API; `...` is anything.
TARGETS = [{"group": str, "kind": str, "name": str}]
BACKENDS = [{"group": str, "kind": str, "name": str, "namespace": str, "port": int, "filters": ...}]
FILTERS = [
    {
        "type": str,
        "extensionRef": {"group": str, "kind": str, "name": str},
        "requestHeaderModifier": {"remove": [str]},
        "urlRewrite": {"hostname": str},
    }
]
PATCHES = [{"applyTo": str, "match": {"context": str, "listener": ..., "cluster": ...}, "patch": ...}]
PORT = {"number": int, "name": str, "protocol": str}
SHAPES: dict[str, Any] = {
    "GatewayClass": {"controllerName": str, "parametersRef": {**TARGETS[0], "namespace": str}},
    "EnvoyProxy": {
        "backendTLS": {"clientCertificateRef": {"name": str, "namespace": str}},
        "provider": {
            "type": str,
            "kubernetes": {
                "envoyDeployment": {"container": {"volumeMounts": ...}, "pod": {"volumes": ...}, "initContainers": ...}
            },
        },
        "telemetry": {
            "accessLog": {
                "settings": [
                    {
                        "sinks": [
                            {
                                "type": str,
                                "als": {
                                    "type": str,
                                    "logName": str,
                                    "http": {"requestHeaders": [str], "responseHeaders": [str]},
                                    "backendRefs": BACKENDS,
                                },
                            }
                        ]
                    }
                ]
            }
        },
    },
    "Backend": {
        "endpoints": [{"unix": {"path": str}, "fqdn": {"hostname": str, "port": int}}],
        "appProtocols": [str],
        "tls": {"wellKnownCACertificates": str, "sni": str},
    },
    "ClientTrafficPolicy": {
        "targetRefs": TARGETS,
        "connection": {"bufferLimit": str},
        "headers": {"earlyRequestHeaders": {"removeOnMatch": [{"type": str, "value": str}]}},
    },
    "EnvoyExtensionPolicy": {
        "targetRefs": TARGETS,
        "extProc": [
            {
                "backendRefs": BACKENDS,
                "failOpen": bool,
                "messageTimeout": str,
                "processingMode": {
                    "allowModeOverride": bool,
                    "request": {"body": str},
                    "response": {"attributes": [str]},
                },
            }
        ],
    },
    "HTTPRouteFilter": {
        "directResponse": {"statusCode": int},
        "credentialInjection": {"overwrite": bool, "credential": {"valueRef": {"name": str}}},
    },
    "HTTPRoute": {
        "parentRefs": [{"name": str}],
        "rules": [
            {
                "matches": [{"path": {"type": str, "value": str}, "headers": [{"name": str, "value": str}]}],
                "filters": FILTERS,
                "timeouts": {"request": str},
                "backendRefs": BACKENDS,
            }
        ],
    },
    "EnvoyFilter": {"workloadSelector": {"labels": ...}, "configPatches": PATCHES},
    "ReferenceGrant": {"from": [{"group": str, "kind": str, "namespace": str}], "to": TARGETS},
    "BackendTLSPolicy": {"targetRefs": TARGETS, "validation": {"hostname": str, "caCertificateRefs": TARGETS}},
    "Certificate": CUSTOM["cert-manager.io/v1 Certificate"],
    "HTTPListenerPolicy": {
        "targetRefs": TARGETS,
        "earlyRequestHeaderModifier": {"remove": [str]},
        "accessLog": [
            {
                "grpcService": {
                    "backendRef": BACKENDS[0],
                    "logName": str,
                    "additionalRequestHeadersToLog": [str],
                    "additionalResponseHeadersToLog": [str],
                }
            }
        ],
    },
    "GatewayExtension": {
        "extProc": {
            "grpcService": {"backendRef": BACKENDS[0]},
            "failOpen": bool,
            "messageTimeout": str,
            "allowProcessingModeOverride": bool,
            "processingMode": {"requestHeaderMode": str, "responseHeaderMode": str, "requestBodyMode": str},
        }
    },
    "TrafficPolicy": {"targetRefs": TARGETS, "extProc": {"extensionRef": {"name": str}}},
    "BackendConfigPolicy": {"targetRefs": TARGETS, "tls": {"sni": str, "secretRef": {"name": str}}},
    "VirtualService": {"hosts": [str], "gateways": [str], "http": ...},
    "ServiceEntry": {"hosts": [str], "ports": [PORT], "resolution": str},
    "DestinationRule": {"host": str, "trafficPolicy": {"tls": {"mode": str, "sni": str}}},
    "gateway.networking.k8s.io/v1 Gateway": {
        "gatewayClassName": str,
        "listeners": [{"name": str, "protocol": str, "port": int}],
    },
    "networking.istio.io/v1 Gateway": {"selector": ..., "servers": [{"port": PORT, "hosts": [str]}]},
}


def snippet(file: Path = GATEWAYS / "gateway.yaml") -> tuple[Any, Any, Any]:
    """The filter, the cluster and the access logger for the settings of these gateways."""
    with offline():
        settings = config.load(file)
    check_attach(file, settings)
    ours, cluster, log = yaml.safe_load(attach(settings))
    return ours, cluster, log


def test_every_manifest_has_known_fields() -> None:
    for document in (*ENVOY_GATEWAY, *ISTIO, *PROCESSOR, *ENVOY_GATEWAY_SHARED, *KGATEWAY):
        kind = document["kind"]
        shape = SHAPES.get(f"{document['apiVersion']} {kind}", SHAPES.get(kind))
        if shape is None:
            kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)
        else:
            assert unknown(document["spec"], shape, kind) == []


def test_the_processor_is_a_restricted_sidecar_that_shares_the_socket() -> None:
    theirs = only(ENVOY_GATEWAY, "EnvoyProxy")["spec"]["provider"]["kubernetes"]["envoyDeployment"]
    istio = only(ISTIO, "Deployment")["spec"]["template"]["spec"]
    pods = [
        (theirs["initContainers"], theirs["container"]["volumeMounts"], theirs["pod"]["volumes"], 65532),
        (istio["initContainers"], istio["containers"][0]["volumeMounts"], istio["volumes"], 1337),
    ]
    for sidecars, mounts, volumes, user in pods:
        [processor] = sidecars
        pod = {"containers": sidecars, "volumes": volumes}
        kubernetes_validate.validate(
            {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": pod}, "1.33", strict=True
        )
        assert processor["restartPolicy"] == "Always"
        assert processor["securityContext"]["runAsUser"] == user, "the socket's mode is 0600"
        assert processor["securityContext"]["readOnlyRootFilesystem"] is True
        own = {mount["mountPath"]: mount["name"] for mount in processor["volumeMounts"]}
        [shared] = mounts
        assert own["/run/extproc"] == shared["name"]
        assert {mount["name"] for mount in processor["volumeMounts"]} == {volume["name"] for volume in volumes}


def test_istio_gets_the_filter_that_the_command_prints() -> None:
    ours, cluster, log = snippet()
    patches = only(ISTIO, "EnvoyFilter")["spec"]["configPatches"]
    values = [patch["patch"]["value"] for patch in patches]
    assert values[0] == cluster
    assert values[1] == ours
    assert values[2]["typed_config"]["access_log"] == [log]


def test_envoy_gateway_gets_the_filter_that_the_command_prints() -> None:
    """As far as its policy can say it. The processor takes a stream without metadata for one of attach mode."""
    ours, cluster, log = snippet()
    ours, log = ours["typed_config"], log["typed_config"]
    [policy] = only(ENVOY_GATEWAY, "EnvoyExtensionPolicy")["spec"]["extProc"]
    mode = policy["processingMode"]
    assert mode["request"]["body"].upper() == ours["processing_mode"]["request_body_mode"]
    assert mode["allowModeOverride"] is ours["allow_mode_override"]
    assert (policy["messageTimeout"], policy["failOpen"]) == (ours["message_timeout"], False)
    assert mode["response"]["attributes"] == ours["response_attributes"]
    assert "forward_rules" not in ours, "the policy cannot say them: attach.client_headers must be set"
    [setting] = only(ENVOY_GATEWAY, "EnvoyProxy")["spec"]["telemetry"]["accessLog"]["settings"]
    als = setting["sinks"][0]["als"]
    assert als["logName"] == log["common_config"]["log_name"]
    assert als["http"]["requestHeaders"] == log["additional_request_headers_to_log"]
    assert als["http"]["responseHeaders"] == log["additional_response_headers_to_log"]
    [backend] = [one for one in ENVOY_GATEWAY if (one["kind"], name_of(one)) == ("Backend", "extproc")]
    address = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"]
    assert backend["spec"]["endpoints"][0]["unix"]["path"] == address["pipe"]["path"]


def test_the_shared_processor_is_reached_by_the_name_and_port_of_its_settings() -> None:
    ours, cluster, log = snippet(SHARED)
    endpoint = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]
    address = endpoint["address"]["socket_address"]
    service = only(PROCESSOR, "Service")
    name, port = f"{name_of(service)}.{service['metadata']['namespace']}.svc", service["spec"]["ports"][0]["port"]
    assert (address["address"], address["port_value"]) == (name, port)
    assert only(PROCESSOR, "Certificate")["spec"]["dnsNames"] == [name]
    assert only(ENVOY_GATEWAY_SHARED, "BackendTLSPolicy")["spec"]["validation"]["hostname"] == name
    assert only(KGATEWAY, "BackendConfigPolicy")["spec"]["tls"]["sni"] == name
    policies = [only(ENVOY_GATEWAY, "EnvoyExtensionPolicy"), only(ENVOY_GATEWAY_SHARED, "EnvoyExtensionPolicy")]
    beside, shared = (policy["spec"]["extProc"][0] for policy in policies)
    assert {**shared, "backendRefs": 0} == {**beside, "backendRefs": 0}
    [reference] = shared["backendRefs"]
    assert f"{reference['name']}.{reference['namespace']}.svc:{reference['port']}" == f"{name}:{port}"
    extension, ours = only(KGATEWAY, "GatewayExtension")["spec"]["extProc"], ours["typed_config"]
    assert (extension["messageTimeout"], extension["failOpen"]) == (ours["message_timeout"], False)
    assert extension["allowProcessingModeOverride"] is ours["allow_mode_override"]
    assert extension["processingMode"]["requestBodyMode"] == ours["processing_mode"]["request_body_mode"]
    [entry] = only(KGATEWAY, "HTTPListenerPolicy")["spec"]["accessLog"]
    assert entry["grpcService"]["logName"] == log["typed_config"]["common_config"]["log_name"]
    assert entry["grpcService"]["backendRef"] == extension["grpcService"]["backendRef"]
    [container] = only(PROCESSOR, "Deployment")["spec"]["template"]["spec"]["containers"]
    assert container["ports"][0]["containerPort"] == port
    for document in PROCESSOR:
        for version in ("1.30", "1.33", kubernetes_validate.latest_version()):
            if document["kind"] != "Certificate":
                kubernetes_validate.validate(document, version, strict=True)


@pytest.mark.skipif(not DEFINITIONS, reason="EXTPROC_CRDS is not set: make crds CRDS=dir")
def test_every_custom_resource_fits_its_definition() -> None:
    """`EXTPROC_CRDS`: a folder of JSON files, `{name: {group, kind, versions: {version: schema}}}`."""
    known = {
        (f"{one['group']}/{version}", one["kind"]): schema
        for file in sorted(Path(DEFINITIONS).glob("*.json"))
        for one in json.loads(file.read_text()).values()
        for version, schema in one["versions"].items()
    }
    charts = [rendered(name) for name in ("mock", "fleet")] if HELM else []
    documents = [*ENVOY_GATEWAY, *ISTIO, *ENVOY_GATEWAY_SHARED, *KGATEWAY, *(one for each in charts for one in each)]
    tried: set[tuple[str, str]] = set()
    found: list[str] = []
    for document in documents:
        kind = document["apiVersion"], document["kind"]
        if kind in known:
            tried.add(kind)
            errors = jsonschema.Draft202012Validator(closed(known[kind]["properties"]["spec"])).iter_errors(
                document["spec"]
            )
            found += [f"{kind[1]} {name_of(document)} {error.json_path}: {error.message[:300]}" for error in errors]
    assert found == []
    assert len(tried) > 10


def closed(schema: Any) -> Any:
    """A definition in which a field that it does not name is an error."""
    if isinstance(schema, list):
        return [closed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: closed(value) for key, value in schema.items()}
    if found.pop("x-kubernetes-int-or-string", False) is True:
        found["type"] = ["integer", "string"]
    if found.pop("nullable", False) is True and isinstance(found.get("type"), str):
        found["type"] = [found["type"], "null"]
    kept = found.get("x-kubernetes-preserve-unknown-fields") or found.get("x-kubernetes-embedded-resource")
    if isinstance(found.get("properties"), dict) and found.get("type") == "object" and not kept:
        found.setdefault("additionalProperties", False)
    return found

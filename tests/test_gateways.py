"""The manifests for Envoy Gateway and Istio: known fields, valid pods, the filter of `extproc envoy --attach`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import kubernetes_validate
import yaml

from extproc.cli.envoy import check_attach
from extproc.envoy.envoy_config import attach
from extproc.settings import config
from extproc.words.values import offline
from tests.shapes import unknown
from tests.test_k8s import name_of, only

ROOT = Path(__file__).parent.parent
GATEWAYS = ROOT / "k8s/gateways"
ENVOY_GATEWAY = list(yaml.safe_load_all((GATEWAYS / "envoy-gateway.yaml").read_text()))
ISTIO = list(yaml.safe_load_all((GATEWAYS / "istio.yaml").read_text()))
# The fields that the manifests use, from the definitions of Envoy Gateway, Istio and Gateway API; `...` is anything.
TARGETS = [{"group": str, "kind": str, "name": str}]
BACKENDS = [{"group": str, "kind": str, "name": str, "namespace": str, "filters": ...}]
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
    "VirtualService": {"hosts": [str], "gateways": [str], "http": ...},
    "ServiceEntry": {"hosts": [str], "ports": [PORT], "resolution": str},
    "DestinationRule": {"host": str, "trafficPolicy": {"tls": {"mode": str, "sni": str}}},
    "gateway.networking.k8s.io/v1 Gateway": {
        "gatewayClassName": str,
        "listeners": [{"name": str, "protocol": str, "port": int}],
    },
    "networking.istio.io/v1 Gateway": {"selector": ..., "servers": [{"port": PORT, "hosts": [str]}]},
}


def snippet() -> tuple[Any, Any, Any]:
    """The filter, the cluster and the access logger for the settings of these gateways."""
    with offline():
        settings = config.load(GATEWAYS / "gateway.yaml")
    check_attach(GATEWAYS / "gateway.yaml", settings)
    ours, cluster, log = yaml.safe_load(attach(settings))
    return ours, cluster, log


def test_every_manifest_has_known_fields() -> None:
    for document in (*ENVOY_GATEWAY, *ISTIO):
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

"""An application that asks a pod's gateway, and the images of the pods."""

from __future__ import annotations

import json
import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any, Self

from tests.cluster.kubelet import Pod

IMAGES = {
    "extproc:0.1.0": "localhost/extproc",
    "envoyproxy/envoy:distroless-v1.40.0": "localhost/extproc-envoy",
}
KEY = "try-me"


class Client:
    """Asks the gateway of one pod. `authority`: PEM file of the certificate authority where the listener has TLS."""

    def __init__(self, pod: Pod, authority: str = "") -> None:
        self.pod = pod
        scheme = "https" if authority else "http"
        self._url = f"{scheme}://{pod.network.address}:10000/v1/chat/completions"
        self._tls = ssl.create_default_context(cafile=authority) if authority else None
        if self._tls is not None:
            self._tls.check_hostname = False  # the pod is asked by its address, a Service by its name

    def status(self, model: str = "assistant", *, key: str = KEY) -> int:
        """The status of one question; 0 where no answer came."""
        try:
            with self.ask(model, key=key) as answer:
                answer.read()
                return int(answer.status)
        except urllib.error.HTTPError as error:
            error.close()
            return error.code
        except OSError:
            return 0

    def ask(self, model: str = "assistant", *, key: str = KEY, stream: bool = False) -> Any:
        """The open answer to one question."""
        body = {"model": model, "messages": [{"role": "user", "content": "Hello"}], "stream": stream}
        head = {"authorization": f"Bearer {key}", "content-type": "application/json"}
        request = urllib.request.Request(self._url, json.dumps(body).encode(), head)
        return urllib.request.urlopen(request, timeout=30, context=self._tls)


class Load:
    """Asks all the time, until the end of its block; `failed` has every status but 200."""

    def __init__(self, ask: Callable[[], int]) -> None:
        self.failed: list[int] = []
        self.asked = 0
        self._ask = ask
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._over.wait(0.02):
            self.asked += 1
            if (status := self._ask()) != 200:
                self.failed.append(status)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._over.set()
        self._thread.join()

"""`python -m extproc.envoy.envoy_config.examples`: regenerates the examples in `envoy/` from their filter YAML.

`NAME.filter.yaml` becomes `NAME.envoy.yaml`; `attach.filter.yaml` becomes `attach.snippet.yaml`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from extproc.envoy.envoy_config import attach, bootstrap, render
from extproc.settings.config import load

FOLDER = Path(__file__).parents[3] / "envoy"
SECRETS_DIR = "/run/extproc/secrets"


def examples(folder: Path = FOLDER) -> Mapping[Path, str]:
    """Generated files with their text."""
    texts = {}
    for source in sorted(folder.glob("*.filter.yaml")):
        name, settings = source.name.removesuffix(".filter.yaml"), load(source)
        if name == "attach":
            texts[folder / "attach.snippet.yaml"] = attach(settings)
        else:
            texts[folder / f"{name}.envoy.yaml"] = render(bootstrap(settings, secrets_dir=SECRETS_DIR, admin_port=9901))
    return texts


if __name__ == "__main__":
    for path, text in examples().items():
        path.write_text(text, encoding="utf-8")

"""An AI gateway for Envoy, as an external processor."""

__version__ = "0.1.0"

"""Envoy: its configuration, and the gRPC services that it calls."""

"""Envoy: its configuration, and the gRPC services of this process that it calls."""

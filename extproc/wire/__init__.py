"""Bytes in and out: Envoy's messages, framings of bodies, gRPC to Envoy, HTTP to others."""

"""Input and output as bytes: Envoy's messages, framings of bodies, gRPC to Envoy, HTTP to other services."""

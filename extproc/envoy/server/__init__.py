"""The server that Envoy talks to: ext_proc streams, access logs, health, and the process around them."""

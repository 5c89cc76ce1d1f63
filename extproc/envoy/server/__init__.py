"""The server for Envoy: ext_proc streams, access logs, health, and their process."""

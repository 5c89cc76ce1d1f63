"""Credentials of providers: keys are re-read, tokens of clouds are fetched, and both are written to files for Envoy."""

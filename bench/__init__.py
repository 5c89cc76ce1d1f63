"""The cost of the gateway, measured beside Envoy alone in the same run. `make bench`."""

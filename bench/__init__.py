"""What the gateway costs, measured beside Envoy alone in the same run. `make bench`."""

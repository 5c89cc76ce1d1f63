"""The filter YAML: its types, its checks and its reference page."""

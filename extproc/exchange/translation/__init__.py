"""Translation of one try: its request into the provider's API, its answer into the client's API."""

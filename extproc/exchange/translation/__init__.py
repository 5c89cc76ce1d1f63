"""Translation of one try: the request into the API of its provider, the answer back into the API of the client."""

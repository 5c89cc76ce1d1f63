"""Pools: providers of several endpoints that run the same models, and the choice of an endpoint for each try.

    endpoint.py   state of one endpoint: what it reports, and what the gateway itself sees
    servers.py    names of metrics, a table for each server, and the reading of a `/metrics` page
    prefixes.py   blocks of a prompt as a chain of hashes, and the index of the endpoints that have them cached
    scorers/      facts that make an endpoint good or bad for a request, a file each
    picker.py     the choice: `Picker.choose(endpoints, facts)` gives the endpoints in the order to try
    explain.py    the choice for people: `extproc check --explain`

All files are without input or output: times are arguments in seconds of one monotonic clock. The same picker serves a
provider's pool and other proxies that ask for an endpoint.

The choice. Candidates are the endpoints that hold the longest known prefix of the prompt, the endpoint that the
conversation's digest points to, and two endpoints drawn at random. Full endpoints are candidates only when all are
full. The candidate with the highest weighted score is first. Two random candidates keep a burst from landing on the one
endpoint that looked idle at the last scrape; the digest leads processes that do not know each other to the same
endpoint.
"""

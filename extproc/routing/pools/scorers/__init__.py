"""Scorers: facts that make an endpoint good or bad for a request. A file each: its module name is the key in
`pool.scorers`. `score` gives 0 to 1, `why` the fact behind it for people; see `picker.Scorer`.
"""

"""Answers that are kept and given again, so that equal requests are paid once.

    settings   keys of the YAML                 key       the digest of a request as it would be answered
    entry      a kept answer, sealed            forms     its form: API, plain or streamed
    flights    equal requests in flight         stores    memory, SQLite, Redis
    answers    all kept answers                 stages    LookUp, Keep, TellCache, Fill
    batches    embeddings, kept by input        similar   questions in other words
    wish       words of clients about it        questions questions listed as equal

A kept answer is the provider's answer before guardrails changed it and before cost and usage were written into it: each
time it passes the stages of answers anew.

`LookUp` runs after every stage that may refuse or change a request, and before budgets hold anything. A hit passes the
stages of events like a provider's answer, so guardrails judge it anew. A field of a request that no list names is part
of the key: a new field makes misses, never wrong hits. `Reuse.plain` says which requests the neutral form carries
whole; their answers serve every API and form.

A question in other words gets a kept answer where the operator listed it (`questions`), or where a model says a clear
yes (`similar`). No rule of words and no threshold of vectors keeps `10 - 3` from `10 / 3`, so scores only suggest.
"""

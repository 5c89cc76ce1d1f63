"""Answers that are kept and given again, so that equal requests are paid once.

    settings   keys of the YAML                 key       the digest of a request as it would be answered
    entry      a kept answer, sealed            forms     its form: API, plain or streamed
    flights    equal requests in flight         stores    memory, SQLite, Redis
    answers    all kept answers                 stages    LookUp, Keep, TellCache, Fill
    batches    embeddings, kept by input        similar   questions in other words
    wish       words of clients about it        questions those that operators list as one

A kept answer is the provider's, before guardrails, cost and usage were written into it: whatever reads answers reads it
anew each time.
"""

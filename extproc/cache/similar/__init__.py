"""Similar questions: answers that are kept for a question in other words.

    wording    words of a text, facts that must be equal, and vectors of words      index      vectors in memory, numpy
    model      vectors of an embedding model, asked through the gateway             samples    pairs that were found
    finder     all of it: the nearest kept question, and new ones                   fleet      vectors of other replicas

Only the last turn of the user is compared. Scope, targets, system prompt, tools, earlier turns and every parameter are
a partition, a digest: texts of different partitions are never compared.
"""

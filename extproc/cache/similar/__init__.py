"""Similar questions: kept answers to questions in other words.

    index     vectors in memory, numpy                  verify    a model says whether one answer is right for both
    model     vectors of an embedding model             finder    finds the nearest kept question, keeps new ones

Only the last turn of the user is compared. Scope, targets, system prompt, tools, earlier turns and every parameter are
a partition, a digest: texts of different partitions are never compared. A score only suggests: no answer is given
without a clear yes of `verify`. Both models are asked through the gateway's own listener.
"""

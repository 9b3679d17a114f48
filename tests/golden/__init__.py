"""Events as released versions wrote them, which every later version reads with the same result.

    tests/golden/events/<version>/types.jsonl        of every event type, one with all its fields and one with the least
                                 history-<n>.jsonl.xz    all events of a run of the real hub and agents
                                 expected-<n>.json       what that version made of the run

A folder is recorded by the version's own code, once, when it is released, and never changed. A type that is new since
the last release is added to the folder of the version that is being made.
"""

"""Format 1: content-addressed, encrypted, packed, in any object store (`docs/repository-format.md`)."""

"""Hackathon ideas: the small real application that Calque copies in its examples, tests and demo.

Ideas (title, text, author, votes) live in PostgreSQL; each idea's document is an object in an S3 bucket.
Everything the application needs to know arrives in environment variables; see :mod:`.settings`.
"""

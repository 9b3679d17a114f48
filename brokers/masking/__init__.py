"""Masking for data service brokers: transformers, rules applied to a schema, rows changed on their way.

Knows no technology's connection and no I/O: a broker says what its schema is and passes rows through.
"""

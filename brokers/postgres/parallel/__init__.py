"""Copies of big databases: tables move over several connections at once, the rest as ``pg_dump`` writes it."""

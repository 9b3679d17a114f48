"""The outside as the application wants it."""

"""Data services in an instant: databases that are kept idle after a restore, of which the next ones are clones."""

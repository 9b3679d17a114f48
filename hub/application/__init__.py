"""What the hub does: takes commands, drives its operations, answers queries. Deciding is left to the domain."""

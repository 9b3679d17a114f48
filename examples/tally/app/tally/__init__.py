"""A booth that takes votes and a counter that counts them, which know each other by their channel alone."""

"""A hook before the app runs again: letters that waited when the copy was made are the original's to send."""

from __future__ import annotations

from letters.box import folder

if __name__ == "__main__":
    waiting = list(folder("queue").iterdir())
    for letter in waiting:
        letter.unlink()
    print(f"{len(waiting)} letters will not be sent from here")

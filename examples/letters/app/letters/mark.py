"""A hook: notes that it ran. ``python -m letters.mark NAME``"""

from __future__ import annotations

import os
import sys

from letters.box import MARKS

if __name__ == "__main__":
    with MARKS.open("a") as file:
        file.write(f"{sys.argv[1]}\n")
    print("noted", os.environ["CALQUE_HOOK"])

"""``python -m hub``"""

from __future__ import annotations

from hub.main import main

if __name__ == "__main__":
    main()

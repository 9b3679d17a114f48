"""``python -m hub.webhooks``"""

from __future__ import annotations

from hub.webhooks.process import main

if __name__ == "__main__":
    main()

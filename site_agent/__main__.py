"""``python -m site_agent``"""

from site_agent.main import main

main()

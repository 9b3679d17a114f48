"""``python -m brokers.messaging``"""

from __future__ import annotations

from brokers.messaging.broker import MessagingBroker
from brokers.messaging.settings import MessagingSettings
from brokers.sdk.main import run_broker

if __name__ == "__main__":
    run_broker(MessagingBroker, MessagingSettings)

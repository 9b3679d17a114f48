"""``python -m brokers.postgres``"""

from __future__ import annotations

from brokers.postgres.both import PostgresBrokerWithServers
from brokers.postgres.settings import PostgresSettings
from brokers.sdk.main import run_broker

if __name__ == "__main__":
    run_broker(PostgresBrokerWithServers, PostgresSettings)

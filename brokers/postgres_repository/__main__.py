"""Starts the Postgres repository broker; its settings are in the file that CALQUE_CONFIG names."""

from brokers.postgres_repository.broker import PostgresRepositoryBroker
from brokers.postgres_repository.settings import PostgresRepositorySettings
from brokers.sdk.main import run_broker

if __name__ == "__main__":
    run_broker(PostgresRepositoryBroker, PostgresRepositorySettings)

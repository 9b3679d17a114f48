"""Starts the S3 repository broker; its settings are in the file that CALQUE_CONFIG names."""

from brokers.s3_repository.broker import S3RepositoryBroker
from brokers.s3_repository.settings import S3RepositorySettings
from brokers.sdk.main import run_broker

if __name__ == "__main__":
    run_broker(S3RepositoryBroker, S3RepositorySettings)

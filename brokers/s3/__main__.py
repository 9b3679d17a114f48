"""``python -m brokers.s3``"""

from __future__ import annotations

from brokers.s3.broker import S3Broker
from brokers.s3.settings import S3Settings
from brokers.sdk.main import run_broker

if __name__ == "__main__":
    run_broker(S3Broker, S3Settings)

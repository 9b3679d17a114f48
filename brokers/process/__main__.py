"""``python -m brokers.process``: the process platform broker."""

from brokers.process.broker import ProcessBroker
from brokers.process.settings import ProcessSettings
from brokers.sdk.main import run_broker

if __name__ == "__main__":
    run_broker(ProcessBroker, ProcessSettings)

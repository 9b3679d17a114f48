"""Starts the filesystem broker; its settings are in the file that CALQUE_CONFIG names."""

from brokers.filesystem.broker import FilesystemBroker
from brokers.filesystem.settings import FilesystemSettings
from brokers.sdk.main import run_broker

if __name__ == "__main__":
    run_broker(FilesystemBroker, FilesystemSettings)

"""``python -m brokers.volume``"""

from __future__ import annotations

from brokers.sdk.main import run_broker
from brokers.volume.broker import VolumeBroker
from brokers.volume.settings import VolumeSettings

if __name__ == "__main__":
    run_broker(VolumeBroker, VolumeSettings)

"""``python -m brokers.process``: the process platform broker."""

import asyncio

from brokers.process.broker import ProcessBroker
from brokers.process.layout import StateLayout
from brokers.process.leftovers import end_leftovers
from brokers.process.settings import ProcessSettings
from brokers.sdk.main import run_broker
from brokers.sdk.settings import load_settings


def main() -> None:
    """Run the broker. When it was stopped (exit code 0), no service runs afterwards, also when the stop came before
    the bus was reached or took too long; when it failed, they run on and the next broker adopts them."""
    made: list[ProcessBroker] = []

    def make(settings: ProcessSettings) -> ProcessBroker:
        made.append(ProcessBroker(settings))
        return made[-1]

    try:
        run_broker(make, ProcessSettings)
    except SystemExit as ended:
        if not ended.code:
            for broker in made:
                broker.let_go()
            asyncio.run(end_leftovers(StateLayout(load_settings(ProcessSettings).state_dir.absolute())))
        raise


if __name__ == "__main__":
    main()

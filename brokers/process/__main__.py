"""``python -m brokers.process``: the process platform broker."""

from brokers.process.broker import ProcessBroker
from brokers.process.settings import ProcessSettings
from brokers.sdk.main import run_broker


def main() -> None:
    """Run the broker. When it was stopped (exit code 0), no service runs afterwards; when it failed, they run on and
    the next broker adopts them."""
    made: list[ProcessBroker] = []

    def make(settings: ProcessSettings) -> ProcessBroker:
        made.append(ProcessBroker(settings))
        return made[-1]

    try:
        run_broker(make, ProcessSettings)
    except SystemExit as ended:
        if not ended.code:
            for broker in made:
                broker.end_leftovers()
        raise


if __name__ == "__main__":
    main()

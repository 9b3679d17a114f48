"""A writer without hooks: one row after the other, each only after the one before it was acknowledged."""

import threading

import psycopg

from .stores import TABLES, connect

PAUSE_SECONDS = 0.05


def write(stopping: threading.Event) -> None:
    with connect() as rows:
        rows.execute(TABLES)
        while not stopping.wait(PAUSE_SECONDS):
            rows.execute("INSERT INTO strokes SELECT coalesce(max(seq), 0) + 1 FROM strokes")


def main() -> None:
    stopping = threading.Event()
    while True:
        try:
            write(stopping)
        except psycopg.Error as error:
            print(f"Postgres: {error}", flush=True)
            stopping.wait(0.5)


if __name__ == "__main__":
    main()

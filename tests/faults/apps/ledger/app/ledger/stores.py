"""The rows in Postgres and the objects in the bucket, as the variables of the environment name them."""

import os
from datetime import timedelta

import psycopg
from obstore.store import S3Store

TABLES = """
    CREATE TABLE IF NOT EXISTS entries (writer text, seq bigint, PRIMARY KEY (writer, seq));
    CREATE TABLE IF NOT EXISTS ballast (id bigint PRIMARY KEY, payload bytea NOT NULL);
    CREATE TABLE IF NOT EXISTS strokes (seq bigint PRIMARY KEY);
"""


def connect() -> psycopg.Connection:
    """A connection that commits every statement."""
    return psycopg.connect(os.environ["ROWS_URI"], autocommit=True, connect_timeout=5)


def bucket() -> S3Store:
    """The bucket."""
    return S3Store(
        os.environ["BLOBS_BUCKET"],
        endpoint=os.environ["BLOBS_ENDPOINT"],
        access_key_id=os.environ["BLOBS_ACCESS_KEY"],
        secret_access_key=os.environ["BLOBS_SECRET_KEY"],
        region=os.environ["BLOBS_REGION"],
        virtual_hosted_style_request=False,
        client_options={"allow_http": True, "timeout": timedelta(seconds=10)},
        retry_config={"max_retries": 2, "retry_timeout": timedelta(seconds=10)},
    )

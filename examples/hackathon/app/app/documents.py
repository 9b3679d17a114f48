"""Documents as objects of an S3 bucket."""

from datetime import timedelta

import obstore
from obstore.exceptions import BaseError
from obstore.store import S3Store

from .settings import Settings

PREFIX = "ideas/"


class DocumentMissingError(Exception):
    """The bucket has no object of this key."""


class DocumentsUnavailableError(Exception):
    """The S3 server cannot be reached or refuses; trying again later may help."""


class DocumentStore:
    """The bucket. Every method raises :class:`DocumentsUnavailableError` when the server cannot serve it."""

    def __init__(self, settings: Settings) -> None:
        self._store = S3Store(
            settings.docs_bucket,
            endpoint=settings.docs_endpoint,
            access_key_id=settings.docs_access_key,
            secret_access_key=settings.docs_secret_key,
            region=settings.docs_region,
            virtual_hosted_style_request=False,
            client_options={
                "allow_http": True,
                "timeout": timedelta(seconds=10),
                "connect_timeout": timedelta(seconds=3),
            },
            retry_config={"max_retries": 3, "retry_timeout": timedelta(seconds=8)},
        )

    async def put(self, key: str, content: bytes) -> None:
        """Store ``content``, durable on return."""
        try:
            await obstore.put_async(self._store, key, content, use_multipart=False)
        except (BaseError, OSError) as error:
            raise DocumentsUnavailableError(_first_line(error)) from error

    async def get(self, key: str) -> bytes:
        """The content of an object.

        Raises:
            DocumentMissingError: there is none.
        """
        try:
            result = await obstore.get_async(self._store, key)
            return bytes(await result.bytes_async())
        except FileNotFoundError as error:
            raise DocumentMissingError(key) from error
        except (BaseError, OSError) as error:
            raise DocumentsUnavailableError(_first_line(error)) from error

    async def delete(self, key: str) -> None:
        """Delete an object; one that is not there is no error."""
        try:
            await obstore.delete_async(self._store, key)
        except FileNotFoundError:
            return
        except (BaseError, OSError) as error:
            raise DocumentsUnavailableError(_first_line(error)) from error

    async def check(self) -> None:
        """List the bucket's first object, or raise."""
        try:
            async for _ in obstore.list(self._store, prefix=PREFIX, chunk_size=1):
                return
        except (BaseError, OSError) as error:
            raise DocumentsUnavailableError(_first_line(error)) from error


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0][:300]

"""Where the bucket of an S3 repository is, and how its objects are kept there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator

from brokers.repository.settings import RepositorySettings
from brokers.sdk.errors import read_value
from brokers.sdk.settings import Section
from schemas.secrets import Secret

PREFIX = re.compile(r"(?:[A-Za-z0-9._-]+/)*")


class BucketSection(Section):
    """A bucket of an S3 endpoint.

    Without key files the keys come from where Amazon's SDK looks for them: the environment, its own files, the
    machine's role. ``storage_class`` is for packs alone: what is small and read often stays in the bucket's own.
    ``addressing`` says where requests name the bucket: in the path, or (``virtual``) in the host.
    ``object_lock`` has the bucket itself keep the packs and manifests of images whose copies ``retention`` locks, in
    this mode: nobody can delete them before their time, with ``GOVERNANCE`` nobody without a right of its own.
    ``restore_days`` and ``restore_tier`` are asked for when a pack has to be brought back from an archive.
    """

    endpoint: str = Field(pattern=r"^https?://")
    region: str = "us-east-1"
    addressing: Literal["path", "virtual"] = "path"
    name: str = Field(min_length=3, max_length=63)
    prefix: str = ""
    create: bool = False
    access_key_file: Path | None = None
    secret_key_file: Path | None = None
    ca_file: Path | None = None
    storage_class: str | None = Field(default=None, pattern=r"^[A-Z0-9_-]{1,40}$")
    object_lock: Literal["GOVERNANCE", "COMPLIANCE"] | None = None
    restore_days: int = Field(default=3, ge=1, le=30)
    restore_tier: Literal["Expedited", "Standard", "Bulk"] = "Standard"

    @field_validator("prefix")
    @classmethod
    def _prefix_is_a_folder(cls, value: str) -> str:
        if not PREFIX.fullmatch(value) or len(value) > 200 or any(part in (".", "..") for part in value.split("/")):
            raise ValueError("is empty, or segments of letters, digits, '.', '_' and '-', each with a '/' after it")
        return value

    @model_validator(mode="after")
    def _both_keys_or_none(self) -> BucketSection:
        if (self.access_key_file is None) != (self.secret_key_file is None):
            raise ValueError("access_key_file and secret_key_file: name both or neither")
        return self

    def keys(self) -> tuple[str, Secret] | None:
        """The pair in the key files; ``None`` when there are none. Raises :class:`CalqueError` when they can't be
        read."""
        if self.access_key_file is None or self.secret_key_file is None:
            return None
        secret = Secret(value=read_value(self.secret_key_file, field="bucket.secret_key_file"))
        return read_value(self.access_key_file, field="bucket.access_key_file"), secret


class S3RepositorySettings(RepositorySettings):
    """What the S3 repository broker is told at its start, beyond what every copy repository broker is told."""

    name: str = "s3"
    bucket: BucketSection

"""From manifests to what the bus carries, and back."""

from typing import Any

import msgspec

from brokers.repository.errors import CorruptManifest
from brokers.repository.manifest import CopyInfo, DataServiceInfo, Manifest, Part
from brokers.repository.opened import CommittedCopy
from schemas.brokers import CommitCopy, Copied, CopyDescription, CopySource
from schemas.values import CopyPart, CopySummary, Level


def copy_part(part: Part) -> CopyPart:
    """A part as it travels."""
    return CopyPart(
        name=part.name, media_type=part.media_type, size=part.size, digest=part.digest, entries=part.entries or 0
    )


def summary(committed: CommittedCopy) -> CopySummary:
    manifest = committed.manifest
    return CopySummary(
        copy=manifest.copy,
        merkle_root=manifest.merkle_root,
        manifest_digest=committed.manifest_digest,
        size=manifest.logical_bytes,
        stored=manifest.stored_bytes,
        parts=tuple(copy_part(part) for part in manifest.parts),
        keep_until=committed.keep_until,
    )


def opening(source: CopySource) -> CopyInfo:
    """What is known of a copy when it is opened for writing."""
    return CopyInfo(source=_strings(msgspec.to_builtins(source)), data_class=source.data_class)


def same_service(source: CopySource, parent: CommittedCopy) -> bool:
    """Whether a copy is one of the same data service."""
    before = parent.manifest.source
    return (before.get("instance"), before.get("data_service")) == (source.instance, source.data_service)


def closing(source: dict[str, str], request: CommitCopy, *, created: str, parent: str) -> CopyInfo:
    """What the manifest of a copy says, known when it is committed. `created` is RFC 3339, UTC."""
    return CopyInfo(
        data_service=DataServiceInfo(source.get("broker", ""), request.copied.engine, request.copied.engine_version),
        data_class=source.get("data_class", "restricted"),
        level={"reached": request.level, "moment": request.moment},
        source=source,
        created=created,
        attributes={"copy_format": request.copied.copy_format},
        parent=parent,
    )


def description(committed: CommittedCopy) -> CopyDescription:
    """Raises CorruptManifest for a copy that was not written by way of the bus."""
    manifest = committed.manifest
    try:
        return CopyDescription(
            summary=summary(committed),
            source=msgspec.convert(manifest.source, CopySource),
            copied=_copied(manifest),
            moment=str(manifest.level.get("moment", "")),
            level=msgspec.convert(manifest.level.get("reached", "crash"), Level),
            created_at=manifest.created,
            parent=manifest.parent,
        )
    except msgspec.ValidationError as error:
        raise CorruptManifest(f"its source can't be read: {error}", copy=manifest.copy) from error


def _copied(manifest: Manifest) -> Copied:
    return Copied(
        copy_format=str(manifest.attributes.get("copy_format", "")),
        parts=tuple(copy_part(part) for part in manifest.parts),
        engine=manifest.data_service.engine,
        engine_version=manifest.data_service.version,
    )


def _strings(source: dict[str, Any]) -> dict[str, str]:
    return {name: str(value) for name, value in source.items()}

"""What can go wrong with a repository, split by who must act. Every error names the copy and, where there is one,
the part and the chunk."""

from schemas.problems import Actor, CalqueError, Problem


class RepositoryError(CalqueError):
    """Base of all errors of a repository. `code` is stable and travels; the message is for people."""

    code = "repository"
    actor = Actor.BROKER
    remedy: str | None = None

    def __init__(
        self, message: str, *, copy: str | None = None, part: str | None = None, chunk: str | None = None
    ) -> None:
        where = [f"copy {copy}" if copy else "", f"part {part}" if part else "", f"chunk {chunk}" if chunk else ""]
        named = ", ".join(piece for piece in where if piece)
        temporary = self.actor is Actor.ENVIRONMENT
        super().__init__(
            Problem(
                code=self.code,
                message=f"{named}: {message}" if named else message,
                actor=self.actor,
                remedy=self.remedy,
                retry_after_seconds=1.0 if temporary else None,
            )
        )
        self.cause = message
        self.copy = copy
        self.part = part
        self.chunk = chunk


class CopyNotFound(RepositoryError):
    """There is no committed copy (or part) of that name here."""

    code = "not_found"
    actor = Actor.CALLER


class InvalidName(RepositoryError):
    """A copy id or part name that can't be a file name."""

    code = "invalid"
    actor = Actor.CALLER


class InvalidPart(RepositoryError):
    """What was sent for a part contradicts itself: digest, size or frames."""

    code = "invalid"
    actor = Actor.CALLER


class Conflict(RepositoryError):
    """The copy is in a state that doesn't allow this: committed, or opened for something else."""

    code = "conflict"
    actor = Actor.CALLER


class IncompleteCopy(RepositoryError):
    """Not all of what the copy names has been written; write the named part again."""

    code = "incomplete"
    actor = Actor.CALLER
    remedy = "write the part again, then commit"


class KeptGone(RepositoryError):
    """An entry can't be kept: the copy that had it is gone, or damaged. The part can be written without it."""

    code = "kept_gone"
    actor = Actor.ENVIRONMENT
    remedy = "write the part again with another grant"


class KeptUnknown(KeptGone):
    """What is to be kept is nothing that lies here; nothing speaks against the copy before."""


class CorruptManifest(RepositoryError):
    """The manifest was changed after it was signed, or is no manifest."""

    code = "corrupt"
    remedy = "transfer the copy again from a repository that holds it whole"


class CorruptChunk(RepositoryError):
    """A chunk is missing, cut short, or its bytes are not those of its digest."""

    code = "corrupt"
    remedy = "transfer the copy again from a repository that holds it whole"


class CorruptPart(RepositoryError):
    """All chunks are sound, but together they are not what was written."""

    code = "corrupt"
    remedy = "transfer the copy again from a repository that holds it whole"


class CorruptObject(RepositoryError):
    """An object of the repository is missing, cut short, changed, or lies under another's name."""

    code = "corrupt"
    remedy = "let the repository be repaired"


class WrongKey(RepositoryError):
    """The key at hand does not open this repository, or is no key."""

    code = "wrong_key"
    remedy = "name this key as a recipient where the repository can be opened"


class RepositoryBusy(RepositoryError):
    """Another process holds the repository, or the part is being written by another connection."""

    code = "busy"
    actor = Actor.ENVIRONMENT


class StorageFailed(RepositoryError):
    """The file system refused: no space, no permission, an I/O error."""

    code = "storage"
    actor = Actor.ENVIRONMENT


class UnknownFormat(RepositoryError):
    """The directory holds a repository of a format that this version doesn't know."""

    code = "unknown_format"


class AlreadyCommitted(Conflict):
    """The copy is whole and can't be written any more."""

    code = "already_committed"

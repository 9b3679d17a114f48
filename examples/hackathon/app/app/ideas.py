"""The model: what an idea is, as it arrives and as it is kept."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class NewIdea:
    """A checked idea that is not stored yet. ``writer`` and ``seq`` come together or not at all; together
    they name the idea, so that a writer may send it again without making a second one."""

    title: str
    text: str
    author: str
    document: bytes
    writer: str | None = None
    seq: int | None = None


@dataclass(frozen=True, kw_only=True)
class Idea:
    """A stored idea. ``doc_digest`` is the document's SHA-256 in hexadecimal, ``doc_size`` is in bytes."""

    id: str
    title: str
    text: str
    author: str
    votes: int
    doc_key: str
    doc_digest: str
    doc_size: int
    writer: str | None
    seq: int | None

    def same_content(self, other: "Idea") -> bool:
        """Whether both say the same, wherever their documents are stored."""
        mine = (self.title, self.text, self.author, self.doc_digest, self.writer, self.seq)
        return mine == (other.title, other.text, other.author, other.doc_digest, other.writer, other.seq)


@dataclass(frozen=True, kw_only=True)
class Stats:
    """Totals over all ideas; ``bytes`` is the size of all documents."""

    count: int
    votes: int
    documents: int
    bytes: int

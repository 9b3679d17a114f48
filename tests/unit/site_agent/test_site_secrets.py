"""Secrets that people give to a site: set once per request, versioned, resolved by reference, never in an event."""

from __future__ import annotations

from schemas import events as ev
from schemas.site_secrets import check_reference
from schemas.values import Requester
from site_agent.domain import secrets
from site_agent.domain.site import Draft, Site

ANN = Requester(principal="ann")


class _Stream:
    """Stores what was decided, as the journal does."""

    def __init__(self) -> None:
        self.site = Site("north")

    def take(self, drafts: list[Draft], *, causation: str) -> list[ev.Event]:
        for draft in drafts:
            sequence = self.site.last_sequence + 1
            self.site.apply(
                draft.aggregate, draft.id, draft.event, time="2026-01-01T00:00:00Z", sequence=sequence,
                causation=causation,
            )  # fmt: skip
        return [draft.event for draft in drafts]


def test_a_request_takes_effect_once_and_versions_go_on_after_a_removal() -> None:
    stream = _Stream()
    first = stream.take(secrets.set_secret(stream.site, "db", by=ANN, id="1"), causation="1")
    assert first == [ev.SecretSet(version=1, by=ANN)]
    assert secrets.set_secret(stream.site, "db", by=ANN, id="1") == []
    stream.take(secrets.set_secret(stream.site, "db", by=ANN, id="2"), causation="2")
    stream.take(secrets.remove_secret(stream.site, "db", by=ANN, id="3"), causation="3")
    assert secrets.remove_secret(stream.site, "db", by=ANN, id="3") == []
    again = stream.take(secrets.set_secret(stream.site, "db", by=ANN, id="4"), causation="4")
    assert again == [ev.SecretSet(version=3, by=ANN)]


def test_a_missing_secret_is_named_with_the_command_that_sets_it() -> None:
    stream = _Stream()
    problem = secrets.missing(stream.site, "secret:db", field="attach.ideas.secret")
    assert problem is not None
    assert problem.code == "secret_not_set"
    assert "'db'" in problem.message
    assert problem.remedy == "set it: calque secret set db --site north"
    stream.take(secrets.set_secret(stream.site, "db", by=ANN, id="1"), causation="1")
    assert secrets.missing(stream.site, "secret:db", field="x") is None
    stream.take(secrets.remove_secret(stream.site, "db", by=ANN, id="2"), causation="2")
    assert secrets.missing(stream.site, "secret:db", field="x") is not None
    unknown = secrets.why_not_removed(stream.site, "db")
    assert unknown is not None
    assert unknown.code == "not_found"


def test_a_value_where_a_reference_belongs_is_refused_and_not_repeated() -> None:
    for wrong in ("hunter2-is-the-password", "secret:", "secret:No Name", "secret:a/b"):
        problem = check_reference(wrong, field="services.web.environment.KEY")
        assert problem is not None
        assert problem.field == "services.web.environment.KEY"
        assert wrong not in problem.sentence() or wrong == "secret:"

"""What must hold of the channels of a template: subjects, and the data services that they name. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator

from schemas.problems import Problem, invalid
from schemas.values import Channel, ServiceSpec, Template

_TOKEN = re.compile(r"[A-Za-z0-9_-]+")
MAX_SUBJECT = 200
MAX_SUBJECTS = 100


def check_channels(template: Template, name: str, service: ServiceSpec) -> Iterator[Problem]:
    """All that is wrong with the channels of one app service."""
    messaging = sorted(each for each, spec in template.data_services.items() if spec.type == "messaging")
    for data_service, channel in service.channels.items():
        field = f"services.{name}.channels.{data_service}"
        if data_service not in messaging:
            known = ", ".join(messaging)
            yield invalid(
                field,
                f"{data_service!r} is no data service of type messaging",
                f"name one of: {known}" if known else f"describe data_services.{data_service} with type: messaging",
            )
        yield from _channel(channel, field=field)


def no_channel(name: str, data_service: str, *, field: str) -> Problem:
    """The problem of a variable in ``field`` that needs credentials where the app service ``name`` has none."""
    return invalid(
        field,
        f"{name!r} has no channel on {data_service!r}, so it has no credentials there",
        f"say what it sends and receives: services.{name}.channels.{data_service}",
    )


def check_subject(subject: str, *, field: str) -> Problem | None:
    """Whether an app may name this subject."""
    tokens = subject.split(".")
    last = len(tokens) - 1
    fine = len(subject) <= MAX_SUBJECT and all(
        token == "*" or (token == ">" and at == last) or _TOKEN.fullmatch(token)  # noqa: S105 - wildcards of subjects
        for at, token in enumerate(tokens)
    )
    if not fine:
        return invalid(
            field,
            f"{subject!r} is no subject",
            "write words of a-z, 0-9, '-' and '_' with dots between; * and > as in NATS",
        )
    if tokens[0] in ("*", ">") or tokens[0].startswith("_"):
        return invalid(field, f"{subject!r} begins with what is kept for inboxes", "begin with a word of the app's own")
    return None


def _channel(channel: Channel, *, field: str) -> Iterator[Problem]:
    if not channel.sends and not channel.receives:
        yield invalid(field, "it neither sends nor receives", "give sends or receives, or leave the channel out")
    for way, subjects in (("sends", channel.sends), ("receives", channel.receives)):
        if len(subjects) > MAX_SUBJECTS:
            yield invalid(f"{field}.{way}", f"more than {MAX_SUBJECTS} subjects", "use wildcards")
        for number, subject in enumerate(subjects):
            if problem := check_subject(subject, field=f"{field}.{way}[{number}]"):
                yield problem

"""A database that was there before is bound and copied with a role that may only read, and nothing of it changes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import psycopg
import pytest
import pytest_asyncio

from schemas.brokers import (
    Attach,
    Attachable,
    Bind,
    Bound,
    CopyData,
    DataServiceHealth,
    Existing,
    Health,
    Outcome,
    PrepareCopy,
    Prepared,
)
from schemas.ids import new_id
from schemas.problems import Problem
from schemas.secrets import Secret
from tests.integration.filesystem.site import Site
from tests.integration.postgres.production import PASSWORD, Production, production
from tests.integration.postgres.services import Postgres, rows
from tests.servers import RunningPostgres

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest_asyncio.fixture(loop_scope="session")
async def shop(postgres_server: RunningPostgres) -> AsyncIterator[Production]:
    async with production(postgres_server, name="production") as made:
        yield made


def attach(existing: Existing, **more: Any) -> Attach:
    return Attach(**{"id": new_id(), "service_id": "existing", "type": "database", "existing": existing, **more})


async def why_not(broker: Postgres, existing: Existing) -> Problem:
    return await broker.fails("attach", attach(existing))


async def prepare(broker: Postgres, shop: Production, copy: str) -> Prepared:
    request = PrepareCopy(id=new_id(), service_id="existing", copy=copy, hold_seconds=60, existing=shop.existing)
    return await broker.ask("prepare_copy", request, Prepared)


async def save(broker: Postgres, shop: Production, repository: Site, copy: str) -> None:
    assert (await prepare(broker, shop, copy)).level == "application"
    grant = repository.open_write(copy)
    request = CopyData(id=new_id(), service_id="existing", copy=copy, grant=grant, existing=shop.existing)
    outcome = await broker.begin("copy", request)
    if outcome.state == "running":
        outcome = await broker.ended(request.id, seconds=30)
    assert outcome.state == "succeeded", outcome.problem
    repository.repository.commit(copy)
    await broker.discard(copy)


async def test_it_is_copied_with_a_role_that_may_only_read_and_restored_as_a_new_one(
    broker: Postgres, shop: Production, repository: Site
) -> None:
    before, ours = await shop.fingerprint(), {each.id for each in await broker.describe()}
    found = await broker.run("attach", attach(shop.existing), Attachable)
    assert (found.resource["database"], found.resource["user"]) == ("production", shop.reader)
    await save(broker, shop, repository, "copy-production")
    await broker.provision("from-production", restore=repository.open_read("copy-production"))
    async with await broker.connect("from-production") as app, await shop.connect() as source:
        everything = "SELECT * FROM orders ORDER BY id"
        assert await rows(app, everything) == await rows(source, everything)
        assert await rows(app, 'SELECT n FROM billing."Odd Name"') == [(7,)]
        assert await rows(app, "SELECT nextval('orders_id_seq')") == [(201,)]
    await broker.deprovision("from-production")
    assert await shop.fingerprint() == before
    assert {each.id for each in await broker.describe()} == ours


async def test_the_moment_is_kept_while_production_goes_on_writing(
    broker: Postgres, shop: Production, repository: Site
) -> None:
    await prepare(broker, shop, "copy-moving")
    await shop.run("INSERT INTO orders (said) VALUES ('too late')")
    await save(broker, shop, repository, "copy-moving")
    await broker.provision("moving", restore=repository.open_read("copy-moving"))
    async with await broker.connect("moving") as app:
        assert await rows(app, "SELECT count(*) FROM orders") == [(200,)]
    await broker.deprovision("moving")


async def test_a_binding_hands_through_what_the_user_gave(broker: Postgres, shop: Production) -> None:
    request = Bind(
        id=new_id(), service_id="existing", binding_id="b", secret=Secret(value="proposed"), existing=shop.existing
    )
    bound = await broker.ask("bind", request, Bound)
    assert bound.attributes["user"] == shop.reader
    assert bound.secrets["password"].value == PASSWORD
    async with await psycopg.AsyncConnection.connect(bound.secrets["uri"].value) as app:
        assert await rows(app, "SELECT count(*) FROM orders") == [(200,)]


async def test_no_request_that_removes_reaches_it(broker: Postgres, shop: Production) -> None:
    """Not even with the very id that it was attached under."""
    before = await shop.fingerprint()
    await broker.run("attach", attach(shop.existing), Attachable)
    await prepare(broker, shop, "copy-kept")
    await broker.unbind("existing", binding="b")
    await broker.deprovision("existing")
    await broker.discard("copy-kept")
    assert await shop.fingerprint() == before


async def test_what_a_role_may_not_read_is_named_before_anything_starts(broker: Postgres, shop: Production) -> None:
    await shop.run(
        f"REVOKE SELECT ON orders_id_seq FROM {shop.reader}",
        'REVOKE SELECT ON billing."Odd Name" FROM ' + shop.reader,
        "CREATE TABLE walled (n int)",
        "ALTER TABLE walled ENABLE ROW LEVEL SECURITY",
        f"GRANT SELECT ON walled TO {shop.reader}",
    )
    problem = await why_not(broker, shop.existing)
    assert problem.code == "not_permitted"
    for words in ('billing."Odd Name" (SELECT)', "sequence public.orders_id_seq", "public.walled (BYPASSRLS"):
        assert words in problem.message
    assert "pg_read_all_data" in (problem.remedy or "")
    request = PrepareCopy(id=new_id(), service_id="existing", copy="copy-less", existing=shop.existing)
    assert (await broker.refuses("prepare_copy", request, Prepared)).code == "not_permitted"


async def test_what_can_t_be_reached_says_what_to_do(broker: Postgres, shop: Production) -> None:
    wrong = await why_not(broker, Existing(url=shop.url, secret=Secret(value="wrong")))
    assert wrong.code == "unauthorised"
    assert "calque secret set" in (wrong.remedy or "")
    nowhere = await why_not(broker, Existing(url=shop.url + "-nowhere", secret=Secret(value=PASSWORD)))
    assert "does not exist" in nowhere.message
    assert not nowhere.temporary
    told = shop.url.replace("@", ":hunter2hunter2@")
    refused = await why_not(broker, Existing(url=told))
    assert (refused.code, refused.field) == ("invalid", "attach")
    assert "hunter2" not in refused.sentence()
    odd = await why_not(broker, Existing(url=shop.url + "?passfile=/etc/passwd"))
    assert "passfile" in odd.message


async def test_health_is_that_of_the_database_itself(broker: Postgres, shop: Production) -> None:
    request = DataServiceHealth(service_id="existing", existing=shop.existing)
    assert (await broker.ask("health", request, Health)).healthy
    wrong = DataServiceHealth(service_id="existing", existing=Existing(url=shop.url, secret=Secret(value="wrong")))
    assert not (await broker.ask("health", wrong, Health)).healthy


async def test_the_broker_says_the_same_however_often_it_is_asked(broker: Postgres, shop: Production) -> None:
    request = attach(shop.existing)
    first = await broker.run("attach", request, Attachable)
    again = await broker.ask("attach", request, Outcome)
    assert again.state == "succeeded"
    assert await broker.run("attach", request, Attachable) == first

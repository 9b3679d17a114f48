"""Each app service has credentials of its own on a channel; repeated, cut off and removed they leave nothing behind."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec
import pytest

from schemas import brokers as wire
from schemas.events import BrokerRegistered
from schemas.ids import new_id
from schemas.problems import CalqueError, temporary
from schemas.secrets import Secret
from schemas.values import Artifact, Binding, Channel, DataServiceSpec, ServiceSpec, Template
from site_agent.adapters.secret_store import SecretStore
from site_agent.application.bindings import Bindings
from site_agent.domain.instance import AppService, DataService, Instance
from site_agent.domain.site import Site
from tests.unit.site_agent.world import BY

BOOTH = Channel(sends=("votes.cast",))
COUNTER = Channel(receives=("votes.cast",))
PROCESS = Artifact(directory="/srv/x", command=("run",))
TEMPLATE = Template(
    name="tally",
    version="1",
    services={
        "booth": ServiceSpec(artifact=PROCESS, channels={"events": BOOTH}),
        "counter": ServiceSpec(artifact=PROCESS, channels={"events": COUNTER}),
        "page": ServiceSpec(artifact=PROCESS),
    },
    data_services={"events": DataServiceSpec(type="messaging"), "db": DataServiceSpec(type="database")},
)


class Broker:
    """A data service broker that echoes the proposed secret."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.away_after: int | None = None

    async def call(self, _kind: str, _name: str, _operation: str, request: Any, reply: type[Any], **_: Any) -> Any:
        if self.away_after is not None and len(self.asked) >= self.away_after:
            raise CalqueError(temporary("unavailable", "the broker is away"))
        self.asked.append(request)
        if isinstance(request, wire.Bind):
            return wire.Bound(
                attributes={"url": "nats://x", "user": request.app_service}, secrets={"creds": request.secret}
            )
        return reply()


@pytest.fixture
def store(tmp_path: Path) -> SecretStore:
    key = tmp_path / "key"
    key.write_bytes(os.urandom(32))
    return SecretStore(tmp_path / "secrets", key_file=key)


def instance(**changes: Any) -> Instance:
    return Instance(
        id=new_id(),
        name="tally",
        template=TEMPLATE,
        written=TEMPLATE,
        by=BY,
        state="deploying",
        services={name: AppService(name=name, spec=spec, broker="process") for name, spec in TEMPLATE.services.items()},
        data_services={
            name: DataService(name=name, spec=spec, broker="nats", plan="small", **changes)
            for name, spec in TEMPLATE.data_services.items()
        },
    )


def bindings(store: SecretStore, broker: Broker) -> Bindings:
    unused: Any = None
    site = Site("north")
    site.brokers["dsb-nats"] = BrokerRegistered(
        kind="dsb", name="nats", version="1", types=("messaging",), attributes=("url", "user", "creds")
    )
    return Bindings(lambda: site, brokers=broker, secrets=store, given=unused)  # type: ignore[arg-type]


def bound(app: Instance, said: dict[str, Any]) -> Instance:
    binding = msgspec.convert(said["binding"], Binding)
    data = msgspec.structs.replace(app.data_services["events"], binding=binding)
    return msgspec.structs.replace(app, data_services={**app.data_services, "events": data})


async def test_each_app_service_has_its_own_and_sees_no_other(store: SecretStore) -> None:
    broker, app = Broker(), instance()
    made = bindings(store, broker)
    said = await made.bind(app, "events", id="o/bind-events/1", operation="o")
    assert [(each.app_service, each.channel) for each in broker.asked] == [("booth", BOOTH), ("counter", COUNTER)]
    assert len({each.id for each in broker.asked}) == len({each.binding_id for each in broker.asked}) == 2
    app = bound(app, said)

    def creds(user: str) -> str | Secret:
        return made.attribute(app, user=user, part="events", attribute="creds", field="f")

    assert creds("booth") == broker.asked[0].secret
    assert creds("counter") == broker.asked[1].secret
    assert creds("booth") != creds("counter")
    assert made.attribute(app, user="booth", part="events", attribute="user", field="f") == "booth"
    with pytest.raises(CalqueError):
        creds("page")


async def test_another_attempt_proposes_the_same_secrets(store: SecretStore) -> None:
    broker, app = Broker(), instance()
    made = bindings(store, broker)
    first = await made.bind(app, "events", id="o/bind-events/1", operation="o")
    again = await made.bind(app, "events", id="o/bind-events/2", operation="o")
    assert first == again
    assert [each.secret for each in broker.asked[:2]] == [each.secret for each in broker.asked[2:]]


async def test_one_that_was_cut_off_in_the_middle_is_removed_whole(store: SecretStore, tmp_path: Path) -> None:
    broker, app = Broker(), instance()
    made = bindings(store, broker)
    broker.away_after = 1
    with pytest.raises(CalqueError):
        await made.bind(app, "events", id="o/bind-events/1", operation="o")
    broker.away_after = None
    await made.unbind(app, "events", id="o/bind-events-undo/1", operation="o")
    unbound = [each for each in broker.asked if isinstance(each, wire.Unbind)]
    assert {each.binding_id for each in unbound} >= {broker.asked[0].binding_id}
    assert len(unbound) == 2
    assert [file.name for file in (tmp_path / "secrets").iterdir()] == []


async def test_a_data_service_of_another_type_has_one_binding(store: SecretStore) -> None:
    broker, app = Broker(), instance()
    said = await bindings(store, broker).bind(app, "db", id="o/bind-db/1", operation="o")
    assert [(each.app_service, each.channel) for each in broker.asked] == [("", None)]
    assert set(said["binding"]["attributes"]) == {"url", "user"}

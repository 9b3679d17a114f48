"""App services on a cluster: deploy, scale, remove, describe, logs. Without the bus.

All state is the cluster's own; what it can't say (which content was healthy, why a deployment failed) stands in
annotations of the service's Deployment.
"""

from __future__ import annotations

import logging
import secrets
from base64 import b64decode
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import msgspec

from brokers.kubernetes import names, objects, rollout
from brokers.kubernetes.checks import check_request
from brokers.kubernetes.cluster import Cluster
from brokers.kubernetes.inventory import Inventory
from brokers.kubernetes.kinds import CONFIG_MAP, DEPLOYMENT, INGRESS, POD, SECRET, SERVICE, Kind
from brokers.kubernetes.names import Owner, ServiceKey
from brokers.kubernetes.objects import Wanted
from brokers.kubernetes.removal import Removal
from brokers.kubernetes.settings import KubernetesSettings
from brokers.kubernetes.waiting import Goal, RolloutWait, pod_log
from brokers.sdk.errors import temporary_error
from brokers.sdk.masking import Mask
from schemas.brokers import Deployed, DeployService, RemoveService, ScaleService
from schemas.problems import CalqueError, conflict, invalid, not_found
from schemas.secrets import Secret

logger = logging.getLogger(__name__)

Object = dict[str, Any]

_SALT_BYTES = 32
_MOST_REPLICAS = 100

Tell = Callable[[str], None]


class Found(NamedTuple):
    """A service that is there: where, and its Deployment."""

    namespace: str
    deployment: Object


class KubernetesPlatform:
    """Runs app services. The inventory has to be started before, and stopped after."""

    def __init__(self, settings: KubernetesSettings, cluster: Cluster, inventory: Inventory, owner: Owner) -> None:
        self._settings = settings
        self._cluster = cluster
        self._inventory = inventory
        self._owner = owner
        self.removal = Removal(
            cluster,
            owner,
            [settings.namespace(space) for space in settings.spaces],
            ingresses=settings.expose == "ingress",
        )

    # --- deploy

    async def deploy(self, request: DeployService, *, cancelling: Callable[[], bool], tell: Tell) -> Deployed:
        """Run the service and wait until it is healthy; see ``DeployService``. When the task is cancelled and
        ``cancelling`` says yes, what was made is removed; else the same request goes on with it."""
        check_request(request, self._settings)
        key = ServiceKey(request.instance, request.service)
        namespace = self._settings.namespace(request.space)
        await self._inventory.synced()
        self._stays_in(key, namespace)
        before = await self._ours(DEPLOYMENT, namespace, key)
        fresh = before is None or _is_begun_by(before, request.id)
        wanted = await self._wanted(request, key, before)
        deployed = False
        try:
            deployment = await self._bring_about(wanted)
            await self._wait(Found(namespace, deployment), wanted.content, key, tell=tell, mask=_mask(request))
            answers = await self._answers(wanted)
            note = {names.DEPLOYED: wanted.content, names.FAILURE: None, names.ANSWERS: _text(answers)}
            await self.note(namespace, key, note)
            deployed = True
            return answers
        except CalqueError as error:
            await self._give_up(Found(namespace, {}), key, wanted.content, error.problem.message)
            raise
        finally:
            if not deployed and cancelling():
                await self._undo(namespace, key, wanted.content, fresh=fresh)

    async def _wanted(self, request: DeployService, key: ServiceKey, before: Object | None) -> Wanted:
        namespace = self._settings.namespace(request.space)
        kept = await self._ours(SECRET, namespace, key)
        data = (kept or {}).get("data") or {}
        salt = b64decode(data[objects.SALT_KEY]) if objects.SALT_KEY in data else secrets.token_bytes(_SALT_BYTES)
        replicas = max(1, before["spec"].get("replicas", 1)) if before is not None else 1
        return Wanted(request, self._owner, self._settings, salt, replicas)

    async def _bring_about(self, wanted: Wanted) -> Object:
        """Apply all objects; the Deployment as the cluster has it then."""
        namespace, key = wanted.namespace, wanted.key
        if self._settings.create_namespaces:
            await self._cluster.ensure_namespace(namespace, self._owner.labels())
        await self.removal.end_hold(namespace, key)
        await self._cluster.apply(SECRET, namespace, objects.secret(wanted))
        await self._put(CONFIG_MAP, namespace, key, objects.config_map(wanted))
        await self._put(SERVICE, namespace, key, objects.service(wanted))
        if self._settings.expose == "ingress":
            await self._put(INGRESS, namespace, key, objects.ingress(wanted))
        deployment = await self._cluster.apply(DEPLOYMENT, namespace, objects.deployment(wanted))
        self._inventory.see(namespace, deployment)
        return deployment

    async def _put(self, kind: Kind, namespace: str, key: ServiceKey, body: Object | None) -> None:
        """Apply the object, or remove the one that is no longer wanted."""
        found = await self._ours(kind, namespace, key)
        if body is not None:
            await self._cluster.apply(kind, namespace, body)
        elif found is not None:
            await self._cluster.delete(kind, namespace, key.object, uid=found["metadata"]["uid"])

    async def _wait(self, found: Found, content: str, key: ServiceKey, *, tell: Tell, mask: Mask) -> None:
        """Wait until the rollout is done. Raises the problem that stands in its way."""
        settings = self._settings
        seconds = float(found.deployment["spec"].get("progressDeadlineSeconds", 60)) - settings.rollout_seconds
        goal = Goal(
            key=key,
            namespace=found.namespace,
            content=content,
            generation=found.deployment["metadata"].get("generation", 0),
            start_seconds=max(1.0, seconds),
            rollout_seconds=settings.rollout_seconds,
            trouble_seconds=settings.trouble_seconds,
            mask=mask,
            tell=tell,
        )
        await RolloutWait(self._cluster, self._inventory, goal).run()

    async def _answers(self, wanted: Wanted) -> Deployed:
        """Where the service answers. Raises the temporary ``no_address`` while the cluster has not said so."""
        key, namespace, settings = wanted.key, wanted.namespace, self._settings
        image = wanted.request.spec.artifact.image or ""
        pods = [pod for pod in self._inventory.pods(namespace, key) if rollout.is_living(pod)]
        digest = image.rpartition("@sha256:")[2] if "@sha256:" in image else rollout.image_digest(pods)
        port = wanted.request.spec.port
        if port is None:
            return Deployed(artifact_digest=digest)
        host = f"{key.object}.{namespace}.svc"
        url = f"http://{host}:{port}"
        if wanted.public and settings.expose == "ingress":
            url = f"{settings.public_scheme}://{objects.ingress_host(wanted)}"
        elif wanted.public and settings.expose != "cluster":
            service = await self._ours(SERVICE, namespace, key) or {}
            outside = _outside(service, port, settings)
            if outside is None:
                raise temporary_error("no_address", "the cluster has given the service no address yet", field="service")
            url = f"{settings.public_scheme}://{outside}"
        return Deployed(host=host, port=port, url=url, artifact_digest=digest)

    async def _give_up(self, found: Found, key: ServiceKey, content: str, cause: str) -> None:
        """After a failed deployment nothing of it runs; a service that ran well with this content is left as it is."""
        try:
            deployment = await self._ours(DEPLOYMENT, found.namespace, key)
            if deployment is None or names.notes(deployment).get(names.DEPLOYED) == content:
                return
            note = {names.FAILURE: cause.partition("; last lines")[0]}
            await self.note(found.namespace, key, note, spec={"replicas": 0})
        except Exception as error:  # the cause that is being told matters more
            logger.warning("the failed deployment of %s could not be stopped: %s", key.service, error)

    async def _undo(self, namespace: str, key: ServiceKey, content: str, *, fresh: bool) -> None:
        if fresh:
            await self.removal.remove(key)
        else:
            await self._give_up(Found(namespace, {}), key, content, "the deployment was cancelled")

    # --- scale, remove

    async def scale(self, request: ScaleService, *, tell: Tell) -> None:
        """Stop it, or run that many pods of it as it was deployed. Raises ``not_found`` and as :meth:`deploy`."""
        if not 0 <= request.replicas <= _MOST_REPLICAS:
            raise CalqueError(invalid("replicas", f"{request.replicas} is not between 0 and {_MOST_REPLICAS}"))
        key = ServiceKey(request.instance, request.service)
        key.check()
        await self._inventory.synced()
        found = await self.find(key)
        if found is None and request.replicas == 0:
            return
        found = found or await self.known(key)
        known = names.notes(found.deployment)
        content = names.notes(found.deployment["spec"]["template"]).get(names.CONTENT, "")
        await self.removal.end_hold(found.namespace, key)
        if request.replicas == 0:
            await self.note(found.namespace, key, {names.FAILURE: None}, spec={"replicas": 0})
            await self.removal.without_pods(found.namespace, key)
            await self._inventory.until(lambda: not self._inventory.pods(found.namespace, key), seconds=5.0)
            return
        if known.get(names.DEPLOYED) != content:
            raise CalqueError(conflict("service", "its deployment was not finished", "deploy it again"))
        deployment = await self.note(found.namespace, key, {names.FAILURE: None}, spec={"replicas": request.replicas})
        mask = await self.mask_of(found.namespace, key)
        await self._wait(Found(found.namespace, deployment), content, key, tell=tell, mask=mask)

    async def remove(self, request: RemoveService) -> None:
        """Remove all that carries the labels of the service, and wait until its pods are gone."""
        key = ServiceKey(request.instance, request.service)
        key.check()
        await self.removal.remove(key)
        gone = await self._inventory.until(lambda: self._inventory.find(key) is None, seconds=5.0)
        if not gone:
            logger.info("%s is removed; the watch has not said so yet", key.object)

    # --- logs

    async def logs(self, *, instance: str, service: str, lines: int) -> tuple[str, ...]:
        """The last lines of the newest pod's output, without secrets. Raises ``not_found``."""
        key = ServiceKey(instance, service)
        found = await self.known(key)
        if lines == 0:
            return ()
        mask = await self.mask_of(found.namespace, key)
        started = [pod for pod in await self.pods(found.namespace, key) if rollout.is_bound(pod)]
        if not started:
            return ()
        newest = max(started, key=lambda pod: str(pod["metadata"].get("creationTimestamp", "")))
        return await pod_log(self._cluster, found.namespace, newest, lines=lines, mask=mask)

    # --- inside

    async def find(self, key: ServiceKey) -> Found | None:
        """The service as it is now: asked of the cluster, because the inventory may be a moment behind."""
        for space in self._settings.spaces:
            namespace = self._settings.namespace(space)
            found = await self._cluster.get(DEPLOYMENT, namespace, key.object)
            if found is not None and names.is_ours(found, key.labels(self._owner)):
                return Found(namespace, found)
        return None

    async def known(self, key: ServiceKey) -> Found:
        """As :meth:`find`. Raises ``not_found``."""
        if found := await self.find(key):
            return found
        raise CalqueError(not_found("service", f"there is no service {key.service} here", "deploy it first"))

    async def pods(self, namespace: str, key: ServiceKey) -> list[Object]:
        """The pods of a service as they are now."""
        found, _ = await self._cluster.list(POD, namespace, labels=names.selector(key.labels(self._owner)))
        return found

    async def _ours(self, kind: Kind, namespace: str, key: ServiceKey) -> Object | None:
        """Our object of this kind. Raises ``conflict`` for somebody else's of the same name: it is never adopted."""
        found = await self._cluster.get(kind, namespace, key.object)
        if found is None or names.is_ours(found, key.labels(self._owner)):
            return found
        labels = found["metadata"].get("labels") or {}
        whose = labels.get(names.MANAGED_BY) or "somebody else"
        raise CalqueError(
            conflict(
                "service",
                f"{kind.kind} {key.object} in namespace {namespace} is not ours: it belongs to {whose}",
                "remove or rename it",
            )
        )

    async def note(
        self, namespace: str, key: ServiceKey, note: Mapping[str, str | None], *, spec: Object | None = None
    ) -> Object:
        body: Object = {"metadata": {"annotations": dict(note)}}
        if spec is not None:
            body["spec"] = spec
        changed = await self._cluster.merge(DEPLOYMENT, namespace, key.object, body)
        self._inventory.see(namespace, changed)
        return changed

    def _stays_in(self, key: ServiceKey, namespace: str) -> None:
        known = self._inventory.find(key)
        if known is not None and known[0] != namespace:
            raise CalqueError(
                conflict("space", f"{key.service} runs in namespace {known[0]}", "remove it there before it moves")
            )

    async def mask_of(self, namespace: str, key: ServiceKey) -> Mask:
        """A mask for the secret variables of the service."""
        kept = await self._cluster.get(SECRET, namespace, key.object)
        data = (kept or {}).get("data") or {}
        values = [b64decode(value).decode(errors="replace") for name, value in data.items() if name != objects.SALT_KEY]
        return Mask(Secret(value=value) for value in values)


def _is_begun_by(before: Object, id: str) -> bool:
    """Whether an earlier run of this very operation made the Deployment, and did not finish."""
    known = names.notes(before)
    return names.DEPLOYED not in known and known.get(names.OPERATION) == id


def _mask(request: DeployService) -> Mask:
    return Mask(request.secret_environment.values())


def _text(answers: Deployed) -> str:
    return msgspec.json.encode(answers).decode()


def _outside(service: Object, port: int, settings: KubernetesSettings) -> str | None:
    """Host and port at which a Service is reached from outside."""
    if settings.expose == "node-port":
        found = next((each.get("nodePort") for each in service.get("spec", {}).get("ports", ())), None)
        return f"{settings.public_host}:{found}" if found else None
    for given in ((service.get("status") or {}).get("loadBalancer") or {}).get("ingress") or ():
        address = given.get("hostname") or given.get("ip")
        if address:
            return f"{address}:{port}"
    return None

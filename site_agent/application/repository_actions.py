"""What the actions of steps ask of copy repositories: commit, fetch, drop, and the manifests of images."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec

from schemas import brokers as wire
from schemas.problems import CalqueError, permanent, temporary
from schemas.values import ImageContent
from site_agent.adapters.brokers import Brokers
from site_agent.application.bulk import Bulk
from site_agent.application.calls import Call, Result
from site_agent.application.grants import Grants
from site_agent.application.repository_watch import RepositoryWatch
from site_agent.domain import plans
from site_agent.domain.consequences import image_content
from site_agent.domain.repositories import placed_at, targets
from site_agent.domain.site import Site

MOST_NAMED = 50
"""How many things a result or an error names: both are stored."""


class RepositoryActions:
    """The actions of one site that concern its copy repositories, by name."""

    def __init__(
        self, site: Callable[[], Site], *, brokers: Brokers, grants: Grants, repositories: RepositoryWatch, bulk: Bulk
    ) -> None:
        self._bulk = bulk
        self._site = site
        self._brokers = brokers
        self._grants = grants
        self._repositories = repositories
        self.actions: dict[str, Callable[[Call], Awaitable[Result]]] = {
            plans.ABORT: self._abort,
            plans.COMMIT: self._commit,
            plans.DROP: self._drop,
            plans.RECORD: self._record,
            plans.FORGET: self._forget,
            plans.FETCH: self._fetch,
            plans.SCAN: self._scan,
            plans.VERIFY: self._verify,
            plans.COLLECT: self._collect,
        }

    async def _abort(self, call: Call) -> Result:
        request = wire.AbortCopy(id=call.id, operation=call.operation.id, copy=call.request["copies"][call.part])
        broker = placed_at(call.request, call.part)
        await self._brokers.call("crb", broker, "abort", request, wire.Done, on=call.operation.id)
        return {}

    async def _commit(self, call: Call) -> Result:
        results = call.operation.results()
        prepared = results[plans.step_id(plans.PREPARE, call.part)]
        request = wire.CommitCopy(
            id=call.id,
            operation=call.operation.id,
            copy=call.request["copies"][call.part],
            copied=msgspec.convert(results[plans.step_id(plans.COPY, call.part)]["copied"], wire.Copied),
            moment=prepared["moment"],
            level=prepared["level"],
        )
        done = await self._brokers.run("crb", placed_at(call.request, call.part), "commit", request, wire.Committed)
        return {"summary": msgspec.to_builtins(done.summary)}

    async def _drop(self, call: Call) -> Result:
        """From every repository when the image is forgotten, else only from the one that this operation wrote to."""
        copy = call.request["copies"][call.part]
        forgotten = call.operation.accepted.kind == "forget"
        brokers = self._site().holders(copy) if forgotten else [placed_at(call.request, call.part)]
        for number, broker in enumerate(brokers):
            id = call.id if number == 0 else f"{call.id}-{broker}"
            request = wire.DeleteCopy(id=id, operation=call.operation.id, copy=copy)
            await self._brokers.run("crb", broker, "delete", request, wire.Done)
        return {}

    # --- images

    async def _record(self, call: Call) -> Result:
        if call.operation.accepted.kind == "save":
            content = image_content(self._site(), call.operation)
        else:
            content = msgspec.convert(call.request["content"], ImageContent)
        request = wire.RecordImage(id=call.id, operation=call.operation.id, content=content)
        for broker in self._holding(call):
            await self._brokers.call("crb", broker, "record_image", request, wire.Done, on=call.operation.id)
        return {}

    def _holding(self, call: Call) -> list[str]:
        """The repositories that the manifest has to lie in: those that hold a copy of the image, and that answer."""
        site, copies = self._site(), call.request["copies"]
        chosen = {placed_at(call.request, part) for part in copies} if "repositories" not in call.request else set()
        chosen |= set(call.request.get("repositories", {}).values())
        held = {name for copy in copies.values() for name in site.holders(copy)}
        found = chosen | held.intersection(site.repositories())
        if held and not found:  # in any other repository it would speak of copies that do not lie there
            lies = ", ".join(sorted(held))
            raise CalqueError(temporary("unavailable", f"copies of the image lie in {lies}, which does not answer now"))
        return sorted(found or {call.request["repository"]})

    async def _forget(self, call: Call) -> Result:
        for broker in self._manifests(call):
            request = wire.ForgetImage(id=call.id, operation=call.operation.id, image=call.request["image"])
            await self._brokers.call("crb", broker, "forget_image", request, wire.Done, on=call.operation.id)
        return {}

    def _manifests(self, call: Call) -> list[str]:
        """The repositories where the image's manifest may lie, also those that are lost for a while: they come back,
        and it with them."""
        site = self._site()
        if call.operation.accepted.kind == "transfer":
            # where copies of the image lay before this operation, its manifest stays
            return sorted(targets(call.request).difference(call.request.get("holding", ())))
        held = {name for copy in call.request["copies"].values() for name in site.holders(copy)}
        chosen = targets(call.request) if "repository" in call.request else set()
        if not held and not chosen:  # an image of nothing but app services: no copy says where it lies
            chosen = site.written_to(call.request["image"]) or site.lost_repositories()
        found = sorted({*site.repositories(), *held, *chosen})
        if not found:
            raise CalqueError(temporary("unavailable", f"no copy repository of site {site.name} answers"))
        return found

    async def _fetch(self, call: Call) -> Result:
        copy, repository = call.request["copies"][call.part], placed_at(call.request, call.part)
        if self._site().has_copy(copy):
            grant = await self._grants.read_here(copy, on=call.operation.id, attempt=call.attempt)
        else:
            grant = await self._grants.from_site(
                copy,
                source=call.request["source"],
                operation=call.operation.accepted.parent or call.operation.id,
                repository=repository,
            )
        grant = msgspec.structs.replace(grant, bytes_per_second=call.request.get("bytes_per_second", 0))
        request = wire.TransferCopy(id=call.id, operation=call.operation.id, copy=copy, grant=grant)
        async with self._bulk.turn():
            done = await self._brokers.run("crb", repository, "transfer", request, wire.Committed)
        return {"summary": msgspec.to_builtins(done.summary)}

    # --- a repository as a whole

    async def _scan(self, call: Call) -> Result:
        """Record what lies in the repository and is on no record. What was found stays, whatever becomes of this."""
        found = await self._repositories.take_in(call.part)
        result: Result = {}
        for status in ("new", "untrusted", "incomplete", "damaged"):
            images = [one for one in found.images if one.status == status]
            if images:
                result[status] = [one.image for one in images[:MOST_NAMED]]
        signers = sorted({one.signer for one in found.images if one.status == "untrusted"})
        return {**result, "signers": signers} if signers else result

    async def _verify(self, call: Call) -> Result:
        site = self._site()
        place = site.place(call.part)
        chosen = call.request.get("copies") or [
            location.copy for location in site.locations.values() if location.repository == place
        ]
        faults: list[str] = []
        for copy in chosen:
            request = wire.VerifyCopy(id=f"{call.id}-{copy}", operation=call.operation.id, copy=copy)
            try:
                verified = await self._brokers.run("crb", call.part, "verify", request, wire.Verified)
            except CalqueError as error:
                if error.problem.temporary:
                    raise
                faults.append(f"copy {copy}: {error.problem.message}")
                continue
            faults += [f"copy {copy}: {fault}" for fault in verified.faults]
        if faults:
            more = f" and {len(faults) - MOST_NAMED} more" if len(faults) > MOST_NAMED else ""
            raise CalqueError(
                permanent(
                    "corrupt",
                    f"{'; '.join(faults[:MOST_NAMED])}{more}",
                    field="repository",
                    remedy="have the image copied here again from another site or repository: calque image transfer",
                )
            )
        return {"copies": len(chosen)}

    async def _collect(self, call: Call) -> Result:
        request = wire.Collect(id=call.id, operation=call.operation.id)
        done = await self._brokers.run("crb", call.part, "collect", request, wire.Collected)
        return {"chunks": done.chunks, "bytes": done.bytes}

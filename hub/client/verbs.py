"""The verbs of the client: commands about templates, apps, images and operations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from hub.client.catalog import Catalog
from hub.client.errors import client_error
from hub.client.started import Started, derived_id
from schemas import commands
from schemas.attachment import check_attachment
from schemas.ids import new_id
from schemas.masking import Masking
from schemas.names import template_token
from schemas.values import Artifact, Attachment, Template, TemplateRef, Value


class Verbs(Catalog):
    """Each is answered when the command is taken, and may be sent again with the same ``command`` id."""

    async def apply_template(self, template: Template, *, command: str | None = None) -> Started:
        """Record a version of a template; the same content again is no change."""
        token = template_token(template.name, template.version)
        return await self._send(commands.ApplyTemplate(template=template), target=token, command=command)

    async def deploy(
        self,
        template: TemplateRef,
        *,
        name: str,
        site: str,
        environment: Mapping[str, Mapping[str, Value]] | None = None,
        plans: Mapping[str, str] | None = None,
        environment_name: str | None = None,
        without: Sequence[str] = (),
        including: Sequence[str] = (),
        artifacts: Mapping[str, Artifact] | None = None,
        attach: Mapping[str, Attachment] | None = None,
        adopted: bool = False,
        expected_plan: str | None = None,
        deadline_seconds: float | None = None,
        command: str | None = None,
    ) -> Started:
        """Deploy a template blank at ``site`` as ``name``; the target is the new instance's id.

        ``attach`` names data services that were there before; ``adopted``: the app services run somewhere else. A URL
        with a password in it is refused here, since the command is stored.
        """
        self._named(name, field="name")
        for service, attachment in (attach or {}).items():
            if problem := check_attachment(attachment, field=f"attach.{service}"):
                raise client_error(problem)
        id = command or new_id()
        data = commands.DeployInstance(
            name=name,
            site=site,
            template=template,
            environment={service: dict(values) for service, values in (environment or {}).items()},
            plans=dict(plans or {}),
            environment_name=environment_name,
            without=tuple(without),
            including=tuple(including),
            artifacts=dict(artifacts or {}),
            attach=dict(attach or {}),
            adopted=adopted,
            expected_plan=expected_plan,
            deadline_seconds=deadline_seconds,
        )
        return await self._send(data, target=derived_id(id, "instance"), command=id)

    async def save(
        self,
        app: str,
        *,
        name: str,
        tags: Sequence[str] = (),
        comment: str = "",
        site: str | None = None,
        repository: str | None = None,
        masked: bool = False,
        masking: Mapping[str, Masking] | None = None,
        bytes_per_second: int = 0,
        expected_plan: str | None = None,
        deadline_seconds: float | None = None,
        command: str | None = None,
    ) -> Started:
        """Save an app as the image ``name``; the target is the new image's id.

        Without a ``repository`` of its site, that site's policy picks one. ``masked``: data is masked as it leaves its
        source, by the rules of ``masking`` (data service -> rules) or, without any, those of the template.
        ``bytes_per_second`` is a limit for its bytes; 0 for none.
        """
        self._named(name, field="name")
        found = await self.app(app, site=site)
        id = command or new_id()
        image = derived_id(id, "image")
        data = commands.SaveInstance(
            image=image,
            name=name,
            tags=tuple(tags),
            comment=comment,
            repository=repository,
            masked=masked or bool(masking),
            masking=dict(masking or {}),
            bytes_per_second=bytes_per_second,
            expected_plan=expected_plan,
            deadline_seconds=deadline_seconds,
        )
        started = await self._send(data, target=found.id, command=id)
        return started._replace(target=image)

    async def run(
        self,
        image: str,
        *,
        name: str,
        site: str,
        environment: Mapping[str, Mapping[str, Value]] | None = None,
        plans: Mapping[str, str] | None = None,
        environment_name: str | None = None,
        without: Sequence[str] = (),
        including: Sequence[str] = (),
        artifacts: Mapping[str, Artifact] | None = None,
        repository: str | None = None,
        expected_plan: str | None = None,
        deadline_seconds: float | None = None,
        command: str | None = None,
    ) -> Started:
        """Run an image at ``site`` as ``name``; the target is the new instance's id.

        Copies that have to be fetched go into ``repository``, else where the site's policy says.
        """
        self._named(name, field="name")
        found = await self.image(image)
        id = command or new_id()
        instance = derived_id(id, "instance")
        data = commands.RunImage(
            instance=instance,
            name=name,
            site=site,
            environment={service: dict(values) for service, values in (environment or {}).items()},
            plans=dict(plans or {}),
            environment_name=environment_name,
            without=tuple(without),
            including=tuple(including),
            artifacts=dict(artifacts or {}),
            repository=repository,
            expected_plan=expected_plan,
            deadline_seconds=deadline_seconds,
        )
        started = await self._send(data, target=found.id, command=id)
        return started._replace(target=instance)

    async def transfer_image(
        self,
        image: str,
        *,
        site: str,
        repository: str | None = None,
        bytes_per_second: int = 0,
        deadline_seconds: float | None = None,
        command: str | None = None,
    ) -> Started:
        """Have an image's copies at ``site`` too, in its ``repository`` or where its policy says; their bytes no
        faster than ``bytes_per_second``, if that is not 0."""
        found = await self.image(image)
        data = commands.TransferImage(
            site=site, repository=repository, bytes_per_second=bytes_per_second, deadline_seconds=deadline_seconds
        )
        return await self._send(data, target=found.id, command=command)

    async def stop(
        self,
        app: str,
        *,
        site: str | None = None,
        expected_plan: str | None = None,
        deadline_seconds: float | None = None,
        command: str | None = None,
    ) -> Started:
        """Stop the app services; data is kept."""
        found = await self.app(app, site=site)
        data = commands.StopInstance(expected_plan=expected_plan, deadline_seconds=deadline_seconds)
        return await self._send(data, target=found.id, command=command)

    async def start(
        self,
        app: str,
        *,
        site: str | None = None,
        expected_plan: str | None = None,
        deadline_seconds: float | None = None,
        command: str | None = None,
    ) -> Started:
        """Start a stopped app."""
        found = await self.app(app, site=site)
        data = commands.StartInstance(expected_plan=expected_plan, deadline_seconds=deadline_seconds)
        return await self._send(data, target=found.id, command=command)

    async def delete(
        self,
        app: str,
        *,
        site: str | None = None,
        expected_plan: str | None = None,
        deadline_seconds: float | None = None,
        command: str | None = None,
    ) -> Started:
        """Remove an app with its data."""
        found = await self.app(app, site=site)
        data = commands.DeleteInstance(expected_plan=expected_plan, deadline_seconds=deadline_seconds)
        return await self._send(data, target=found.id, command=command)

    async def edit_image(
        self,
        image: str,
        *,
        name: str | None = None,
        tags: Sequence[str] | None = None,
        comment: str | None = None,
        command: str | None = None,
    ) -> Started:
        """Change an image's name, tags (all of them) or comment; what is ``None`` stays."""
        found = await self.image(image)
        data = commands.EditImage(name=name, tags=None if tags is None else tuple(tags), comment=comment)
        return await self._send(data, target=found.id, command=command)

    async def delete_image(self, image: str, *, command: str | None = None) -> Started:
        """Delete an image and its copies."""
        found = await self.image(image)
        return await self._send(commands.DeleteImage(), target=found.id, command=command)

    async def cancel(self, operation: str, *, command: str | None = None) -> Started:
        """Cancel a running operation; what it did is undone."""
        found = await self.operation(operation)
        return await self._send(commands.CancelOperation(), target=found.id, command=command)

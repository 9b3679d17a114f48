"""Makes a home with a history: run with an old version of the program to keep a home of that version.

    python make_home.py ARCHIVE.tar.xz

It is made at the one place where it can run: bindings of volumes name directories by their whole path.

It has one site without Postgres and S3 (they would make it large): an app with a volume, saved as the image
``before``, then changed and stopped; and one that was deleted. Archived when everything stands still.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
import tarfile
import tempfile
from contextlib import AsyncExitStack
from pathlib import Path

from hub.client import Client, load_context
from hub.client.readiness import sites_ready
from hub.stack.embedded import EmbeddedStack
from schemas.artifact_digest import tree_digest
from schemas.values import Artifact, DataServiceSpec, HealthCheck, ServiceSpec, Template, TemplateRef

PARTS = (
    "hub-nats", "hub", "north-nats", "north-agent", "north-dsb-volume", "north-psb-process", "north-crb-filesystem",
)  # fmt: skip
BROKERS = ("dsb-volume", "psb-process", "crb-filesystem")
PLACE = Path("/tmp/calque-home-of-0.1.0")
"""Where the home is made, and where a test has to put it again."""

SERVE = """
import http.server, os, pathlib
notes = pathlib.Path(os.environ["NOTES"])
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = b"".join(p.read_bytes() for p in sorted(notes.iterdir()))
        self.send_response(200); self.send_header("content-length", str(len(body))); self.end_headers()
        self.wfile.write(body)
    def do_POST(self):
        (notes / self.path.strip("/")).write_bytes(self.rfile.read(int(self.headers["content-length"])))
        self.send_response(204); self.end_headers()
    def log_message(self, *_): pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""


async def make(home: Path, work: Path) -> None:
    """Fill the home."""
    (work / "serve.py").write_text(SERVE)
    artifact = Artifact(directory=str(work), command=("python", "serve.py"), digest=tree_digest(work))
    template = Template(
        name="notes",
        version="1.0.0",
        entrypoint="web",
        services={
            "web": ServiceSpec(
                type="public",
                artifact=artifact,
                port=8080,
                environment={"NOTES": "${notes.path}"},
                health=HealthCheck(path="/"),
            )
        },
        data_services={"notes": DataServiceSpec(type="volume")},
    )
    async with AsyncExitStack() as around:
        await around.enter_async_context(EmbeddedStack(home, sites=("north",), parts=PARTS))
        client = await around.enter_async_context(await Client.connect(load_context(home)))
        await sites_ready(client, sites=("north",), brokers=BROKERS)
        await client.apply_template(template)
        for name in ("kept", "gone"):
            await done(client, await client.deploy(TemplateRef(name="notes"), name=name, site="north"))
        await note(client, "first", b"before the image\n")
        await done(client, await client.save("kept", name="before", tags=("old",), comment="made by 0.1.0"))
        await note(client, "second", b"after the image\n")
        await done(client, await client.delete("gone"))
        await done(client, await client.stop("kept"))


async def done(client: Client, started: object) -> None:
    """Wait for it."""
    await client.wait(started.operation, timeout=60.0)  # type: ignore[attr-defined]


async def note(client: Client, name: str, text: bytes) -> None:
    """Write a note in the app ``kept``."""
    from urllib.request import Request, urlopen

    url = (await client.app("kept")).url
    await asyncio.to_thread(lambda: urlopen(Request(f"{url}/{name}", data=text, method="POST")).close())


def main() -> None:
    """Make the home and archive it, without logs and settings, which every start makes anew."""
    with tempfile.TemporaryDirectory() as directory:
        home, work = PLACE, Path(directory)
        home.mkdir(mode=0o700)
        asyncio.run(make(home, work))
        with tarfile.open(sys.argv[1], "w:xz") as archive:
            for path in sorted(home.rglob("*")):
                relative = path.relative_to(home)
                if relative.parts[0] not in ("logs", "config", "run") and not path.is_socket():
                    archive.add(path, arcname=str(relative), recursive=False)
        shutil.rmtree(home)


if __name__ == "__main__":
    main()

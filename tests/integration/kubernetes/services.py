"""The broker on a simulated cluster, and the kit's app as its image."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import brokers.testkit
from bus.connection import Bus
from schemas.values import Artifact, ServiceSpec
from tests.integration.broker_process import BrokerProcess
from tests.integration.kubernetes.simulated.api import SimulatedCluster
from tests.integration.kubernetes.simulated.node import Image

APP_IMAGE = "registry.test/conformance:1"
SPEC = ServiceSpec(
    artifact=Artifact(type="image", image=APP_IMAGE, command=("python", "app.py")), type="public", port=8080
)


def give_app(cluster: SimulatedCluster, directory: Path) -> None:
    """Let the cluster pull the kit's app."""
    image = directory / "image"
    image.mkdir(parents=True, exist_ok=True)
    shutil.copy(Path(brokers.testkit.__file__).with_name("app.py"), image / "app.py")
    cluster.node.images[APP_IMAGE] = Image(image, ("python", "app.py"))


def settings(directory: Path, cluster: SimulatedCluster) -> dict[str, Any]:
    """What the broker is told of the cluster."""
    kubeconfig = directory / "kubeconfig"
    kubeconfig.write_text(cluster.kubeconfig())
    return {
        "kubeconfig": str(kubeconfig),
        "expose": "node-port",
        "public_host": "127.0.0.1",
        "rollout_seconds": 15.0,
        "trouble_seconds": 0.5,
    }


class Kubernetes(BrokerProcess):
    """The broker as a process."""

    def __init__(self, cluster: SimulatedCluster, *, bus: Bus, nats_url: str, directory: Path, name: str) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        super().__init__(
            "brokers.kubernetes",
            bus=bus,
            nats_url=nats_url,
            kind="psb",
            name=name,
            directory=directory,
            **settings(directory, cluster),
        )

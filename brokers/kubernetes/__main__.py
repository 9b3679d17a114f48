"""``python -m brokers.kubernetes``: the Kubernetes platform broker."""

from brokers.kubernetes.broker import KubernetesBroker
from brokers.kubernetes.settings import KubernetesSettings
from brokers.sdk.main import run_broker

if __name__ == "__main__":
    run_broker(KubernetesBroker, KubernetesSettings)

"""The Kubernetes platform broker: app services as Deployments, spaces as namespaces."""

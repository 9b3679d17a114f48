"""A real control plane: etcd, API server, controller manager and scheduler, with kwok in place of kubelets."""

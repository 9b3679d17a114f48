"""What people write: the template file in YAML, and errors that say file, line, column, field and remedy."""

from hub.manifest.faults import Fault, ManifestError
from hub.manifest.load import load_template, resolve_artifact

__all__ = ["Fault", "ManifestError", "load_template", "resolve_artifact"]

"""What people write: the template file in YAML, and errors that say file, line, column, field and remedy."""

from hub.manifest.faults import Fault, ManifestError
from hub.manifest.load import load_template, resolve_artifact
from hub.manifest.masking import load_rules

__all__ = ["Fault", "ManifestError", "load_rules", "load_template", "resolve_artifact"]

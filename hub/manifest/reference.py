"""The JSON Schema of the template file, for editors: ``python -m hub.manifest.reference [FILE]`` writes it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from hub.manifest.models import TemplateFile


def template_schema() -> str:
    """The schema as it stands in ``docs/template.schema.json``."""
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "urn:calque:schema:template-file",
        **TemplateFile.model_json_schema(),
        "title": "Calque app template",
    }
    return json.dumps(schema, indent=2) + "\n"


if __name__ == "__main__":
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(template_schema())
    else:
        sys.stdout.write(template_schema())

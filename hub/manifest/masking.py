"""Masking rules as people write them: in a template below ``masking`` of a data service, or in a file of their own that
has, for each data service by its name, the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
from pydantic import RootModel, ValidationError

from hub.manifest.document import read_document
from hub.manifest.faults import ManifestError
from hub.manifest.form import type_fault
from hub.manifest.models import MaskingModel
from schemas.masking import Masking
from schemas.masking_rules import check_masking
from schemas.problems import CalqueError, invalid, not_found


class RulesFile(RootModel[dict[str, MaskingModel]]):
    """The form of a file of rules: data service -> its rules."""


def masking_fields(written: dict[str, Any]) -> dict[str, Any]:
    """The rules of one data service as they travel: columns and tables in their order. A value left out is NULL."""
    columns = [
        {"column": column, "transformer": "null" if transformer is None else transformer}
        for column, transformer in written["columns"].items()
    ]
    rows = [{"table": table, "share": str(share)} for table, share in written["rows"].items()]
    return {**written, "columns": columns, "rows": rows}


def load_rules(path: Path) -> dict[str, Masking]:
    """The rules in a file of their own, by data service. Raises :class:`ManifestError` with all faults, or
    :class:`CalqueError` when there is no such file."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise CalqueError(not_found("rules", f"there is no file {str(path)!r}", "check the path")) from None
    except OSError as error:
        raise CalqueError(invalid("rules", f"{str(path)!r}: {error.strerror}", "name a file to read")) from None
    return parse_rules(content, file=str(path))


def parse_rules(content: bytes, *, file: str) -> dict[str, Masking]:
    """The rules in ``content``, by data service. Raises :class:`ManifestError`."""
    document = read_document(content, file=file)
    try:
        model = RulesFile.model_validate(document.value)
    except ValidationError as error:
        found = error.errors(include_url=False)
        raise ManifestError([type_fault(document, each, model=RulesFile) for each in found]) from None
    rules = {name: msgspec.convert(masking_fields(each.model_dump()), Masking) for name, each in model.root.items()}
    problems = [problem for name, each in rules.items() for problem in check_masking(each, field=name)]
    if problems:
        raise ManifestError([document.fault(problem) for problem in problems])
    return rules

"""The template of the sample application, and those that are broken on purpose."""

import pytest

from hub.manifest import ManifestError, load_template
from tests.e2e.hackathon.sample import EXAMPLE

BROKEN = {
    "bad-port": "services.web.port",
    "binding-to-nothing": "services.web.environment.DOCS_BUCKET",
    "cycle": "depends_on",
    "missing-entrypoint": "entrypoint",
    "unknown-data-service-type": "data_services.docs.type",
    "unknown-service-type": "services.web.type",
}


def test_the_template_is_accepted() -> None:
    assert load_template(EXAMPLE / "calque.yaml").name == "hackathon"


def test_every_broken_template_is_tried() -> None:
    assert {path.stem for path in (EXAMPLE / "broken").iterdir()} == set(BROKEN)


@pytest.mark.parametrize(("name", "field"), BROKEN.items())
def test_a_broken_template_is_refused_by_file_line_and_field(name: str, field: str) -> None:
    with pytest.raises(ManifestError, match=rf"{name}\.yaml:\d+:\d+: \S*") as refused:
        load_template(EXAMPLE / "broken" / f"{name}.yaml")
    assert field in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1


def test_the_package_carries_the_example() -> None:
    shipped = EXAMPLE.parents[1] / "hub" / "demo" / "hackathon"
    assert (shipped / "calque.yaml").read_bytes() == (EXAMPLE / "calque.yaml").read_bytes()

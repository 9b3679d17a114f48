"""``--attach`` and ``--attach-secret``: what they may say, and that nothing at fault is repeated."""

from __future__ import annotations

import click
import pytest

from hub.cli.values import attachments
from schemas.values import Attachment

URL = "s3://docs?endpoint=https://s3.example&access_key=AKIA"


def test_urls_and_the_secrets_that_open_them() -> None:
    found = attachments([f"docs={URL}", "thumbs=file:///srv/thumbs"], ["docs=shop-s3"])
    assert found == {
        "docs": Attachment(url=URL, secret="secret:shop-s3"),
        "thumbs": Attachment(url="file:///srv/thumbs"),
    }


@pytest.mark.parametrize(
    ("urls", "secrets"),
    [
        (["hunter2"], []),
        (["=hunter2"], []),
        (["docs="], []),
        ([f"docs={URL}", "docs=hunter2"], []),
        ([f"docs={URL}"], ["hunter2"]),
        ([], ["docs=hunter2"]),
    ],
)
def test_what_is_no_pair_is_refused_and_not_repeated(urls: list[str], secrets: list[str]) -> None:
    with pytest.raises(click.BadParameter) as caught:
        attachments(urls, secrets)
    assert "hunter2" not in caught.value.message

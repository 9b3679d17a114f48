"""The words of masking rules, as people write them."""

from __future__ import annotations

from pathlib import Path

import pytest

from hub.manifest import ManifestError, load_rules
from hub.manifest.load import parse_template
from hub.manifest.masking import parse_rules
from schemas.masking import Masking, MaskingRule, rules_digest
from schemas.masking_rules import MalformedRule, Pattern, Transformer, parse_pattern, parse_transformer

TEMPLATE = """
name: shop
version: "1"
services: {web: {artifact: {type: image, image: web}}}
data_services:
  db:
    type: database
    masking:
      unclassified: refuse
      columns:
        users.email: fake email
        users.token: null
"""


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        ("keep", Transformer("keep")),
        ("null", Transformer("null")),
        ("keep  format", Transformer("keep format")),
        ("fake first name", Transformer("fake", "first name")),
        ("shift dates", Transformer("shift dates", days=365)),
        ("shift dates 30", Transformer("shift dates", days=30)),
        ("shift dates 30 by user_id", Transformer("shift dates", days=30, by="user_id")),
        ("shift dates by user_id", Transformer("shift dates", days=365, by="user_id")),
        ("custom tax-number", Transformer("custom", "tax-number")),
    ],
)
def test_transformers_are_understood(words: str, meant: Transformer) -> None:
    assert parse_transformer(words) == meant
    assert parse_transformer(str(meant)) == meant


@pytest.mark.parametrize("words", ["", "hash it", "fake", "fake news", "shift dates 0", "shift dates x", "custom A B"])
def test_what_is_no_transformer_is_told_with_those_there_are(words: str) -> None:
    with pytest.raises(MalformedRule, match=r"use one of|out of range|no name"):
        parse_transformer(words)


def test_patterns_are_understood() -> None:
    assert parse_pattern("users.email") == Pattern("", "users", "email")
    assert parse_pattern("crm.users.*") == Pattern("crm", "users", "*")
    assert parse_pattern("users.profile->contact.email") == Pattern("", "users", "profile", ("contact", "email"))
    for wrong in ("users", "a.b.c.d", "users.", "users.a->", ".a"):
        with pytest.raises(MalformedRule, match="is no column"):
            parse_pattern(wrong)
    assert parse_pattern("u*.e?ail").fits("public", "users", "email")
    assert not parse_pattern("crm.users.email").fits("public", "users", "email")


def test_a_template_holds_its_rules_in_their_order(tmp_path: Path) -> None:
    template = parse_template(TEMPLATE.encode(), file="calque.yaml", base=tmp_path)
    assert template.data_services["db"].masking == Masking(
        columns=(
            MaskingRule(column="users.email", transformer="fake email"),
            MaskingRule(column="users.token", transformer="null"),
        ),
        unclassified="refuse",
    )


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("fake email", "fake mail", r"11:22: data_services.db.masking.columns.users.email: there is no fake 'mail'"),
        ("users.token", "token", r"12:\d+: data_services.db.masking.columns.token: 'token' is no column"),
        ("refuse", "reject", r"9:21: data_services.db.masking.unclassified: 'reject' is not possible here; use one of"),
        ("unclassified: refuse", "keep: true", r"data_services.db.masking: it is kept as a whole, and there are rules"),
        ("unclassified", "unclasified", r"unknown key; did you mean 'unclassified'"),
    ],
)
def test_a_fault_in_a_rule_names_its_place(tmp_path: Path, old: str, new: str, said: str) -> None:
    with pytest.raises(ManifestError, match=said):
        parse_template(TEMPLATE.replace(old, new, 1).encode(), file="calque.yaml", base=tmp_path)


def test_a_file_of_rules_has_them_by_data_service(tmp_path: Path) -> None:
    file = tmp_path / "rules.yaml"
    file.write_text("db:\n  columns: {users.a: hash}\nfiles:\n  keep: true\n")
    assert load_rules(file) == {
        "db": Masking(columns=(MaskingRule(column="users.a", transformer="hash"),)),
        "files": Masking(keep=True),
    }
    with pytest.raises(ManifestError, match=r"rules.yaml:2:3: files.kep: unknown key; did you mean 'keep'"):
        parse_rules(b"files:\n  kep: true\n", file="rules.yaml")
    with pytest.raises(ManifestError, match="it says nothing"):
        parse_rules(b"db:\n  unclassified: keep\n", file="rules.yaml")


def test_the_digest_follows_the_order_of_rules() -> None:
    first, second = MaskingRule(column="a.*", transformer="hash"), MaskingRule(column="*.b", transformer="keep")
    assert rules_digest(Masking(columns=(first, second))) != rules_digest(Masking(columns=(second, first)))

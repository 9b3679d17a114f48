"""Rules about rows: their words, and what they mean for a schema."""

from __future__ import annotations

from pathlib import Path

import pytest

from brokers.masking.rowset import RowSetBuilder, SameDigest
from brokers.masking.schema import Name
from brokers.masking.subset import Reference, Subset, Whole, plan_subset
from hub.manifest import ManifestError
from hub.manifest.load import parse_template
from hub.manifest.masking import parse_rules
from schemas.masking import Masking, RowsRule, rules_digest
from schemas.masking_rows import MalformedShare, Share, TablePattern, parse_share, parse_table

TEMPLATE = """
name: shop
version: "1"
services: {web: {artifact: {type: image, image: web}}}
data_services:
  db:
    type: database
    masking:
      rows:
        customers: 10%
        crm.orders: 500
        products: referenced
"""
WHOLE = 2**64


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        ("10%", Share("percent", below=WHOLE // 10)),
        (" 0.5 %", Share("percent", below=WHOLE // 200)),
        ("0%", Share("percent")),
        ("1000", Share("count", most=1000)),
        ("referenced", Share("referenced")),
    ],
)
def test_shares_are_understood(words: str, meant: Share) -> None:
    assert parse_share(words) == meant


def test_all_and_nothing_are_told_apart() -> None:
    assert parse_share("100%").all
    assert not parse_share("99.9%").all
    assert parse_share("0").nothing
    assert parse_share("0%").nothing
    assert not parse_share("referenced").nothing


@pytest.mark.parametrize("words", ["", "some", "-1", "101%", "id < 10", "1.5", "1e3", "10 percent"])
def test_what_is_no_share_is_refused(words: str) -> None:
    with pytest.raises(MalformedShare, match=r"use one of|more than there is"):
        parse_share(words)


def test_tables_are_understood() -> None:
    assert parse_table("users") == TablePattern("", "users")
    assert parse_table("crm.*") == TablePattern("crm", "*")
    assert parse_table("crm.*").fits("crm", "users")
    assert not parse_table("crm.*").fits("public", "users")
    for wrong in ("", "a.b.c", "a.", ".a"):
        with pytest.raises(MalformedShare, match="is no table"):
            parse_table(wrong)


def test_a_template_holds_rules_about_rows_in_their_order(tmp_path: Path) -> None:
    template = parse_template(TEMPLATE.encode(), file="calque.yaml", base=tmp_path)
    assert template.data_services["db"].masking == Masking(
        rows=(
            RowsRule(table="customers", share="10%"),
            RowsRule(table="crm.orders", share="500"),
            RowsRule(table="products", share="referenced"),
        )
    )


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("10%", "110%", r"10:\d+: data_services.db.masking.rows.customers: 110% is more than there is"),
        ("500", "id < 500", r"11:\d+: data_services.db.masking.rows.crm.orders: 'id < 500' does not say how much"),
        ("crm.orders", "crm.a.orders", r"11:\d+: .*rows.crm.a.orders: 'crm.a.orders' is no table"),
        ("      rows:", "      keep: true\n      rows:", r"data_services.db.masking: it is kept as a whole, and there"),
    ],
)
def test_a_fault_in_a_rule_names_its_place(tmp_path: Path, old: str, new: str, said: str) -> None:
    with pytest.raises(ManifestError, match=said):
        parse_template(TEMPLATE.replace(old, new, 1).encode(), file="calque.yaml", base=tmp_path)


def test_a_file_of_rules_may_be_about_rows() -> None:
    rules = parse_rules(b"db: {rows: {users: 10, '*': 100%}}\n", file="rules.yaml")
    assert rules["db"].rows == (RowsRule(table="users", share="10"), RowsRule(table="*", share="100%"))
    with pytest.raises(ManifestError, match=r"db.rows.users"):
        parse_rules(b"db: {rows: {users: true}}\n", file="rules.yaml")


def test_rules_about_rows_are_part_of_the_digest() -> None:
    assert rules_digest(Masking(keep=True)) != rules_digest(Masking(rows=(RowsRule(table="a", share="1"),)))


def whole(name: str, *parts: str, key: tuple[str, ...] = ("id",)) -> Whole:
    return Whole(Name("public", name), tuple(Name("public", part) for part in parts or (name,)), key)


def reference(child: str, other: str, *, period: bool = False) -> Reference:
    return Reference(f"{child}_{other}", Name("public", child), Name("public", other), "", period)


WHOLES = (
    whole("customers"),
    whole("orders"),
    whole("lines", key=()),
    whole("products"),
    whole("visits", "visits_1", "visits_2"),
    whole("log", key=()),
    whole("countries"),
)
REFERENCES = (
    reference("orders", "customers"),
    reference("lines", "orders"),
    reference("lines", "products"),
    reference("customers", "countries"),
)


def planned(**rules: str) -> Subset:
    made = [RowsRule(table=table, share=share) for table, share in rules.items()]
    return plan_subset(WHOLES, REFERENCES, made)


def test_what_refers_to_rows_that_are_left_out_is_followed() -> None:
    found = planned(customers="10%")
    assert [str(each.name) for each in found.followed] == ["customers", "lines", "orders"]
    assert [(each.field, "has to lose rows where lines_orders" in each.message) for each in found.problems] == [
        ("lines", True)
    ]
    assert "primary key" in (found.problems[0].remedy or "")


def test_what_only_shrinks_to_what_is_referred_to_takes_no_row_of_others() -> None:
    found = planned(products="referenced")
    assert [str(each.name) for each in found.followed] == ["products"]
    assert [each.name for each in found.references] == ["lines_products"]
    assert found.problems == ()


def test_a_table_without_key_may_be_emptied_and_no_more() -> None:
    assert [str(each.name) for each in planned(log="0%").emptied] == ["log"]
    assert planned(log="0%").problems == ()
    assert [each.field for each in planned(log="5%").problems] == ["log"]
    assert "by rule 'log'" in planned(log="5%").problems[0].message


def test_rules_that_fit_nothing_or_a_partition_are_named() -> None:
    assert planned(nobody="5%").unused == ("nobody",)
    (problem,) = planned(visits_1="5%").problems
    assert problem.field == "rows.visits_1"
    assert "visits_1 is a partition of visits" in problem.message
    assert planned(visits="5%").problems == ()


def test_the_first_rule_that_fits_a_table_counts() -> None:
    found = planned(customers="100%", **{"c*": "0%"})
    assert [str(each.name) for each in found.emptied] == ["countries"]
    assert found.shares.keys() == {Name("public", "countries")}


def test_a_table_that_nothing_refers_to_is_worth_a_note() -> None:
    assert ["refers to visits" in note for note in planned(countries="referenced", visits="referenced").notes] == [True]


def test_foreign_keys_about_periods_are_refused_by_name() -> None:
    references = (reference("orders", "customers", period=True),)
    found = plan_subset(WHOLES, references, [RowsRule(table="customers", share="5%")])
    assert ["orders_customers" in each.message for each in found.problems] == [True]


def test_rows_are_found_by_their_digests() -> None:
    builder = RowSetBuilder()
    digests = [number * 0x9E3779B97F4A7C15 % WHOLE for number in range(5000)]
    for digest in digests:
        builder.add(digest)
    rows = builder.build()
    assert len(rows) == 5000
    assert sorted(rows.find(digest) for digest in digests) == list(range(5000))
    assert rows.find(12345) == -1
    assert rows.find(WHOLE - 1) == -1
    assert rows.below(WHOLE) == 5000
    assert rows.below(WHOLE // 2) == sum(digest < WHOLE // 2 for digest in digests)
    builder = RowSetBuilder()
    builder.add(7)
    builder.add(7)
    with pytest.raises(SameDigest):
        builder.build()

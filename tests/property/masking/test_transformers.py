"""Transformers: deterministic, of their type, different where they promise it, silent about what they were given."""

from __future__ import annotations

import json
import unicodedata
import uuid
from datetime import date

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from brokers.masking.copytext import MaskedColumn, RowMask, decoded, encoded
from brokers.masking.dates import Shift
from brokers.masking.fakes import KINDS
from brokers.masking.keyed import Keyed
from brokers.masking.permute import Permutation
from brokers.masking.transformers import CannotMask, Change, Custom, Workshop, stays_different
from brokers.masking.types import read_type
from schemas.masking_rules import FAKES, parse_transformer
from schemas.problems import CalqueError
from schemas.secrets import Secret

KEY = Keyed.of(Secret(value="a key"))
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=60)
KEYED = ["hash", "keep format", *(f"fake {kind}" for kind in FAKES)]


def change(words: str, type: str, *, key: Keyed = KEY) -> Change:
    return Workshop(key, custom={}).change(parse_transformer(words), read_type(type))


def test_every_fake_that_rules_may_name_can_be_made() -> None:
    assert KINDS.keys() == set(FAKES)


@pytest.mark.parametrize("words", KEYED)
@given(text=TEXTS, limit=st.integers(1, 60))
@settings(max_examples=40)
def test_texts_are_masked_the_same_each_time_and_fit_their_column(words: str, text: str, limit: int) -> None:
    text = text[:limit]
    made = change(words, f"character varying({limit})")(text, None)
    assert made == change(words, f"character varying({limit})")(text, None)
    assert made is not None
    assert len(made) <= limit


@given(st.text("abcdefghijklmnopqrstuvwxyz0123456789", min_size=12, max_size=60))
def test_nothing_of_a_text_is_in_what_stands_for_it(text: str) -> None:
    for words in KEYED:
        made = change(words, "text")(text, None)
        assert made is not None
        assert made != text
        assert not any(text[place : place + 8] in made.lower() for place in range(len(text) - 7))


@pytest.mark.parametrize("words", KEYED)
@given(text=st.text(min_size=1, max_size=30))
@settings(max_examples=20)
def test_another_key_makes_another_value_of_most(words: str, text: str) -> None:
    made = {change(words, "text", key=Keyed.of(Secret(value=str(number))))(text * 3, None) for number in range(12)}
    changing = [sign for sign in text if unicodedata.category(sign) in ("Ll", "Lu", "Nd") and sign.isascii()]
    assert len(made) > 1 or (words == "keep format" and not changing)


@given(TEXTS)
def test_keep_format_keeps_the_form(text: str) -> None:
    made = change("keep format", "text")(text, None)
    assert made is not None
    assert len(made) == len(text)
    for was, is_now in zip(text, made, strict=True):
        assert unicodedata.category(was) == unicodedata.category(is_now)
        assert was == is_now or unicodedata.category(was) in ("Ll", "Lu", "Lo", "Nd")


DIFFERENT = ["hash", "keep format", "fake email", "fake username", "fake url"]


@pytest.mark.parametrize(("words", "type"), [("hash", "bytea"), *((each, "text") for each in DIFFERENT)])
@given(texts=st.sets(TEXTS, min_size=2, max_size=40))
@settings(max_examples=30)
def test_different_texts_stay_different(words: str, type: str, texts: set[str]) -> None:
    assert stays_different(parse_transformer(words), read_type(type), custom={})
    masked = change(words, type)
    assert len({masked(text, None) for text in texts}) == len(texts)


@pytest.mark.parametrize("words", ["hash", "keep format"])
@pytest.mark.parametrize(("type", "bits"), [("smallint", 16), ("integer", 32), ("bigint", 64)])
@given(data=st.data())
@settings(max_examples=40)
def test_integers_stay_in_the_range_of_their_type_and_different(
    words: str, type: str, bits: int, data: st.DataObject
) -> None:
    bound = 2 ** (bits - 1)
    numbers = data.draw(st.sets(st.integers(-bound, bound - 1), min_size=1, max_size=30))
    masked = change(words, type)
    made = [int(str(masked(str(number), None))) for number in numbers]
    assert all(-bound <= number < bound for number in made)
    assert len(set(made)) == len(numbers)
    # what refers to it from a wider type becomes the same
    wider = change(words, "bigint")
    assert made == [int(str(wider(str(number), None))) for number in numbers]
    if words == "keep format":
        assert all(len(str(abs(a))) == len(str(abs(b))) for a, b in zip(numbers, made, strict=True) if a >= 0)


@given(st.integers(2, 10**24), st.data())
@settings(max_examples=60)
def test_a_permutation_is_one(size: int, data: st.DataObject) -> None:
    permutation = Permutation(KEY)
    numbers = data.draw(st.sets(st.integers(0, size - 1), min_size=1, max_size=40))
    made = {permutation(number, size, tweak=b"t") for number in numbers}
    assert len(made) == len(numbers)
    assert all(0 <= number < size for number in made)


@pytest.mark.parametrize("size", [2, 7, 100, 4096, 4097, 6000])
def test_a_whole_permutation_reaches_all(size: int) -> None:
    permutation = Permutation(KEY)
    made = [permutation(number, size) for number in range(size)]
    assert sorted(made) == list(range(size))
    assert size > 4096 or not any(number == moved for number, moved in enumerate(made))


@given(st.decimals(allow_nan=False, allow_infinity=False, places=2, min_value=-(10**8), max_value=10**8))
def test_numbers_keep_their_digits(number: object) -> None:
    for words in ("hash", "keep format"):
        made = str(change(words, "numeric(10,2)")(str(number), None))
        assert [sign for sign in made if not sign.isdigit()] == [sign for sign in str(number) if not sign.isdigit()]
        assert len(made) == len(str(number))


@given(st.uuids())
def test_a_uuid_stays_one(value: uuid.UUID) -> None:
    made = change("hash", "uuid")(str(value), None)
    assert uuid.UUID(made).version == 4
    assert made != str(value)


@given(st.dates(), st.integers(1, 2000), st.text(max_size=5))
def test_dates_move_by_a_bounded_number_of_days_and_never_by_none(value: date, days: int, by: str) -> None:
    assume(date(7, 1, 1) < value < date(9990, 1, 1))
    for other in (None, by):
        made = date.fromisoformat(Shift(KEY, days=days)(value.isoformat(), other))
        assert 1 <= abs((made - value).days) <= days


@given(st.dates(date(10, 1, 1), date(9000, 1, 1)), st.dates(date(10, 1, 1), date(9000, 1, 1)))
def test_a_shift_for_all_keeps_what_lies_between(first: date, second: date) -> None:
    shift = Shift(KEY, days=400)
    moved = [date.fromisoformat(shift(each.isoformat())) for each in (first, second)]
    assert moved[1] - moved[0] == second - first


@pytest.mark.parametrize("value", ["infinity", "-infinity"])
def test_infinite_dates_stay(value: str) -> None:
    assert change("shift dates", "date")(value, None) == value


@pytest.mark.parametrize(
    ("value", "form"),
    [("0044-03-15 BC", "BC"), ("0001-01-01", ""), ("4713-01-01 BC", "BC"), ("294276-12-31 23:59:59.999999+00", "+00")],
)
def test_odd_dates_stay_dates(value: str, form: str) -> None:
    made = change("shift dates 3", "timestamp with time zone")(value, None)
    assert made is not None
    assert made != value
    assert made.endswith(form)
    assert made.count("BC") <= 1


def test_what_is_no_date_says_nothing_of_itself() -> None:
    with pytest.raises(CannotMask) as caught:
        change("shift dates", "date")("15/03/1985", None)
    assert "1985" not in str(caught.value)
    assert change("shift dates", "text")("born in 1985", None) == "REDACTED"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**80), 2**80) | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=15,
)


@given(JSON)
@settings(max_examples=60)
def test_json_stays_json_of_the_same_shape(value: object) -> None:
    for words in ("hash", "redact", "keep format", "fake email"):
        made = json.loads(str(change(words, "jsonb")(json.dumps(value), None)))
        assert _shape(made) == _shape(value)


def _shape(value: object) -> object:
    if isinstance(value, dict):
        return {key: _shape(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_shape(each) for each in value]
    return "number" if isinstance(value, int | float) and not isinstance(value, bool) else type(value).__name__


def test_a_place_in_json_has_its_own_transformer_and_the_rest_stays() -> None:
    workshop = Workshop(KEY, custom={})
    places = {("people", "*", "email"): parse_transformer("fake email"), ("secret",): parse_transformer("null")}
    written = '{"people": [{"email": "a@corp", "n": 1.500}], "secret": {"a": "b"}, "twice": 1, "twice": 2}'
    made = str(workshop.in_json(places)(written, None))
    assert '"n": 1.500' in made
    assert '"twice": 1, "twice": 2' in made
    assert "a@corp" not in made
    assert '"a": null' in made
    [person] = json.loads(made)["people"]
    assert person["email"] == change("fake email", "text")("a@corp", None)


@pytest.mark.parametrize(
    ("written", "elements"),
    [
        ("{}", []), ("{a,NULL,b}", ["a", None, "b"]), ('{"a,b","c\\"d\\\\",""}', ["a,b", 'c"d\\', ""]),
        ('{"NULL"}', ["NULL"]), ("{{a},{b}}", ["a", "b"]), ("[2:3]={x,y}", ["x", "y"]),
    ],
)  # fmt: skip
def test_each_element_of_an_array_is_masked_by_itself(written: str, elements: list[str | None]) -> None:
    seen: list[str] = []

    def look(value: str, _key: bytes) -> str:
        seen.append(value)
        return value

    workshop = Workshop(KEY, custom={"look": Custom(look)})
    made = workshop.change(parse_transformer("custom look"), read_type("text[]"))(written, None)
    assert seen == [each for each in elements if each is not None]
    assert str(made).count("NULL") >= elements.count(None)


@given(st.lists(st.tuples(TEXTS, st.none() | TEXTS, TEXTS), max_size=20), st.integers(1, 50))
@settings(max_examples=60)
def test_rows_pass_in_any_pieces_and_only_masked_columns_change(
    rows: list[tuple[str, str | None, str]], size: int
) -> None:
    def line(row: tuple[str, str | None, str]) -> bytes:
        return b"\t".join(b"\\N" if value is None else encoded(value) for value in row) + b"\n"

    written = b"".join(map(line, rows))
    masked = change("hash", "text")
    filter = RowMask("t", [MaskedColumn("b", 1, masked)])
    pieces = [written[place : place + size] for place in range(0, len(written), size)]
    made = b"".join([*(filter.feed(piece) for piece in pieces), filter.finish()])
    found = [
        tuple(None if field == b"\\N" else decoded(field) for field in each.split(b"\t"))
        for each in made.split(b"\n")[:-1]
    ]
    assert found == [(a, None if b is None else masked(b, None), c) for a, b, c in rows]


def test_a_row_that_is_cut_short_and_a_value_that_can_not_be_masked_are_errors_that_show_nothing() -> None:
    filter = RowMask("people", [MaskedColumn("born", 0, change("shift dates", "date"))])
    with pytest.raises(CalqueError, match=r"people\.born can't be masked: a date is not in ISO form") as caught:
        filter.feed(b"15.3.1985\n")
    assert "1985" not in repr(caught.value.problem)
    assert caught.value.__suppress_context__
    filter = RowMask("people", [MaskedColumn("born", 0, change("redact", "date"))])
    assert filter.feed(b"2000-01-01\n2001-") == b"1970-01-01\n"
    with pytest.raises(CalqueError, match="cut short"):
        filter.finish()


def test_a_shift_goes_by_another_column_of_the_row() -> None:
    filter = RowMask("visits", [MaskedColumn("at", 1, change("shift dates 300 by person", "date"), by=0)])
    made = filter.feed(b"ada\t2020-01-01\nada\t2020-01-11\nalan\t2020-01-01\n\\N\t\\N\n").decode().splitlines()
    first, second, other = (date.fromisoformat(line.split("\t")[1]) for line in made[:3])
    assert (second - first).days == 10
    assert other != first
    assert made[3] == "\\N\t\\N"


def test_a_custom_transformer_that_fails_or_gives_no_text_says_nothing_of_the_value() -> None:
    def fails(value: str, _key: bytes) -> str:
        raise ValueError(value)

    workshop = Workshop(KEY, custom={"fails": Custom(fails), "odd": Custom(lambda _value, _key: 5)})  # type: ignore[arg-type,return-value]
    for name in ("fails", "odd"):
        with pytest.raises(CannotMask) as caught:
            workshop.change(parse_transformer(f"custom {name}"), read_type("text"))("Lovelace", None)
        assert "Lovelace" not in str(caught.value)

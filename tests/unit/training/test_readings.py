"""The same value means the same, from whatever file it came and in whatever request it is asked."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

from tests.unit.training.asked import Uploaded, upload
from training.errors import BadData, BadRequest
from training.export import to_csv


def column(frame: pd.DataFrame, name: str) -> list[Any]:
    return [None if value != value else value for value in frame[name].tolist()]


def in_every_format(made: Uploaded, name: str, value: Any, cell: str | None = None) -> set[Any]:
    """The feature that this value becomes, by each way of asking."""
    rows = [{name: value}]
    asked = [made.by_rows(rows), made.by_data(rows), made.by_tensors(rows)]
    asked.append(made.by_cells([{name: value if cell is None else cell}]))
    return {column(frame, name)[0] for frame in asked}


def parquet(frame: pd.DataFrame) -> bytes:
    out = io.BytesIO()
    frame.to_parquet(out, index=False)
    return out.getvalue()


COUNTRIES = "size,c,label\n" + "".join(f"{row % 7},{pair}\n" for row, pair in enumerate(["NA,x", "DE,y", "FR,z"] * 10))


# ---------------------------------------------------------------- kinds 1 to 3: missing, strings, space
def test_a_token_that_was_missing_is_missing_in_every_request(tmp_path: Path) -> None:
    made = upload(tmp_path, COUNTRIES)
    assert column(made.data.frame, "c")[:3] == ["", "DE", "FR"]
    assert in_every_format(made, "c", "NA") == {""}
    assert in_every_format(made, "c", "DE") == {"DE"}
    (note,) = [note for note in made.result.detail.notes if note.column == "c"]
    assert (note.code, note.value, note.line, note.count) == ("missing_tokens", "NA", 2, 10)
    assert "'NA' taken as missing, 10 times (first in line 2)" in note.message


def test_strings_of_json_stay_strings(tmp_path: Path) -> None:
    lines = [
        f'{{"zip": "{10003 + row % 4}", "c": "{c}", "label": "{row % 2}"}}' for row, c in enumerate(["NA", "DE"] * 10)
    ]
    made = upload(tmp_path, "\n".join(lines))
    assert made.types == {"zip": "category", "c": "category", "label": "category"}
    assert made.result.detail.columns[2].categories == ["0", "1"]
    assert made.data.y.tolist()[:2] == ["0", "1"]
    assert in_every_format(made, "c", "NA") == {"NA"}
    assert in_every_format(made, "zip", "10003") == {"10003"}
    assert made.notes == set()


@pytest.mark.parametrize(
    ("values", "kind", "asked", "feature"),
    [
        ("[5, 6]", "integer", 5, 5.0),
        ("[5, 6.5]", "number", 6.5, 6.5),
        ("[true, false]", "boolean", True, 1.0),
        ('["a", 5]', "category", 5, "5"),
        ('["a", true]', "category", True, "true"),
        ("[12345678901234567890, 1]", "category", 12345678901234567890, "12345678901234567890"),
    ],
)
def test_values_of_json_are_what_they_are(tmp_path: Path, values: str, kind: str, asked: Any, feature: Any) -> None:
    import json

    told = json.loads(values)
    lines = [json.dumps({"v": told[row % 2], "label": f"l{row % 2}"}) for row in range(20)]
    made = upload(tmp_path, "\n".join(lines))
    assert made.types["v"] == kind
    rows = [{"v": asked}]
    assert column(made.by_rows(rows), "v") == column(made.by_data(rows), "v") == [feature]
    assert column(made.by_cells([{"v": json.dumps(asked)}]), "v") == [feature]
    assert feature in column(made.data.frame, "v")


def test_typed_strings_keep_their_space_and_their_words(tmp_path: Path) -> None:
    frame = pd.DataFrame({"c": [" red", "red", "NA", "10001"] * 5, "y": ["p", "q"] * 10})
    made = upload(tmp_path, parquet(frame))
    assert made.types["c"] == "category"
    for value in (" red", "red", "NA", "10001"):
        assert in_every_format(made, "c", value) == {value}


def test_space_around_a_cell_of_a_text_file_means_nothing_in_any_request(tmp_path: Path) -> None:
    made = upload(tmp_path, "c,y\n" + "red ,p\n  red,q\n blue,p\n" * 5)
    assert set(column(made.data.frame, "c")) == {"red", "blue"}
    assert in_every_format(made, "c", " red ") == {"red"}


# ---------------------------------------------------------------- kind 7: the form of numbers
def table(values: Sequence[str], delimiter: str = "\t", target: str = "") -> str:
    """Thirty rows of the values with a second column, so that any delimiter is found."""
    cells = [values[row % len(values)] for row in range(30)]
    quoted = [f'"{cell}"' if delimiter in cell else cell for cell in cells]
    return f"v{delimiter}y\n" + "".join(f"{cell}{delimiter}{'pq'[row % 2]}\n" for row, cell in enumerate(quoted))


@pytest.mark.parametrize("delimiter", ["\t", "|", ";", ","])
@pytest.mark.parametrize(
    ("values", "numbers", "kind"),
    [
        (["1,5", "2,25", "3,0"], [1.5, 2.25, 3.0], "number"),
        (["1,234.5", "12.25", "1,000,000"], [1234.5, 12.25, 1e6], "number"),
        (["1.234,5", "12,25", "1.000.000"], [1234.5, 12.25, 1e6], "number"),
        (["1 234,5", "12,25", "1 000 000"], [1234.5, 12.25, 1e6], "number"),
        (["1\u00a0234,5", "12,25"], [1234.5, 12.25], "number"),
        (["1\u202f234.5", "12.25"], [1234.5, 12.25], "number"),
        (["1'234.5", "12.25"], [1234.5, 12.25], "number"),
        (["1,234,567", "12"], [1234567.0, 12.0], "integer"),
        (["-1.5", "+2.5", "\u22123.5"], [-1.5, 2.5, -3.5], "number"),
        (["12 %", "7.5%"], [12.0, 7.5], "number"),
        (["$1,234.50", "-$5.00"], [1234.5, -5.0], "number"),
        (["1.234,50 \u20ac", "5,00 \u20ac"], [1234.5, 5.0], "number"),
    ],
)
def test_the_form_of_numbers_is_found_for_every_delimiter(
    tmp_path: Path, delimiter: str, values: list[str], numbers: list[float], kind: str
) -> None:
    made = upload(tmp_path, table(values, delimiter))
    assert made.types["v"] == kind
    assert column(made.data.frame, "v")[: len(values)] == numbers
    assert column(made.by_cells([{"v": value} for value in values]), "v") == numbers
    assert column(made.by_rows([{"v": number} for number in numbers]), "v") == numbers


@pytest.mark.parametrize(
    ("values", "note"),
    [
        (["1,234", "5,678"], "grouped_digits"),
        (["12 %", "7 %"], "unit"),
    ],
)
def test_what_was_guessed_of_numbers_is_noted(tmp_path: Path, values: list[str], note: str) -> None:
    made = upload(tmp_path, table(values, ","))
    assert (note, "v") in made.notes


def test_another_column_tells_what_a_comma_is(tmp_path: Path) -> None:
    """`1,234` alone could be either."""
    rows = [f"1,234\t{row},5\t{'pq'[row % 2]}" for row in range(20)]
    made = upload(tmp_path, "a\tb\ty\n" + "\n".join(rows))
    assert column(made.data.frame, "a")[0] == 1.234
    assert ("decimal_comma", None) in made.notes
    rows = [f"1,234\t{row}.5\t{'pq'[row % 2]}" for row in range(20)]
    made = upload(tmp_path, "a\tb\ty\n" + "\n".join(rows))
    assert column(made.data.frame, "a")[0] == 1234


def test_two_decimal_marks_in_one_file_are_refused_with_both_lines(tmp_path: Path) -> None:
    rows = [f"{row},5\t{row}.5\t{'pq'[row % 2]}" for row in range(20)]
    with pytest.raises(BadData, match=r"line 2, column 'a': '0,5' has a decimal comma; line 2, column 'b'") as refused:
        upload(tmp_path, "a\tb\ty\n" + "\n".join(rows))
    assert refused.value.code == "mixed_decimals"


def test_a_sign_that_not_all_numbers_carry_is_none(tmp_path: Path) -> None:
    assert upload(tmp_path, table(["5 %", "6", "7 %"])).types["v"] == "category"


# ---------------------------------------------------------------- kind 8: integers to the digit
def test_integers_come_back_to_the_digit(tmp_path: Path) -> None:
    labels = ["1234567890123456789", "5", "9223372036854775807"]
    made = upload(tmp_path, "a,y\n" + "".join(f"{row},{labels[row % 3]}\n" for row in range(30)))
    assert made.types["y"] == "integer"
    assert set(made.data.y.tolist()) == {int(label) for label in labels}


def test_integers_beyond_64_bits_are_labels_and_stay_two(tmp_path: Path) -> None:
    ids = ["12345678901234567890", "12345678901234567891"]
    made = upload(tmp_path, "id,y\n" + "".join(f"{ids[row % 2]},{'pq'[row % 2]}\n" for row in range(30)))
    assert made.types["id"] == "category"
    assert set(column(made.data.frame, "id")) == set(ids)
    assert ("long_integers", "id") in made.notes


def test_groups_that_are_long_integers_stay_apart(tmp_path: Path) -> None:
    ids = [2**60, 2**60 + 1, 2**60 + 2]
    text = "g,a,y\n" + "".join(f"{ids[row % 3]},{row},{'pq'[row % 2]}\n" for row in range(30))
    made = upload(tmp_path, text, group="g")
    assert made.data.groups is not None
    assert set(made.data.groups.tolist()) == set(ids)


# ---------------------------------------------------------------- kind 9: a few that are no numbers
@pytest.mark.parametrize("token", ["-", "None", "#DIV/0!", "<1.0", "31/12/2024", "n.a."])
@pytest.mark.parametrize("form", ["{}", "{}.5"])
def test_a_token_among_numbers_is_missing_and_noted(tmp_path: Path, token: str, form: str) -> None:
    cells = [form.format(row) for row in range(59)]
    cells.insert(30, token)
    made = upload(tmp_path, "v,y\n" + "".join(f"{cell},{'pq'[row % 2]}\n" for row, cell in enumerate(cells)))
    assert made.types["v"] == ("integer" if form == "{}" else "number")
    assert column(made.data.frame, "v")[30] is None
    assert column(made.by_cells([{"v": token}]), "v") == [None]
    (note,) = [note for note in made.result.detail.notes if note.code == "not_a_value"]
    assert (note.column, note.value, note.line, note.count) == ("v", token, 32, 1)


def test_a_token_among_dates_is_missing_and_noted(tmp_path: Path) -> None:
    cells = [f"2024-01-{row % 28 + 1:02d}" for row in range(59)] + ["31/12/2024"]
    made = upload(tmp_path, "v,y\n" + "".join(f"{cell},{'pq'[row % 2]}\n" for row, cell in enumerate(cells)))
    assert made.types["v"] == "datetime"
    assert column(made.data.frame, "v")[59] is None
    assert ("not_a_value", "v") in made.notes


def test_many_that_are_no_numbers_make_labels(tmp_path: Path) -> None:
    cells = [str(row) for row in range(50)] + ["x"] * 10
    made = upload(tmp_path, "v,y\n" + "".join(f"{cell},{'pq'[row % 2]}\n" for row, cell in enumerate(cells)))
    assert made.types["v"] == "category"


@pytest.mark.parametrize("task", ["", "regression"])
@pytest.mark.parametrize("token", ["-", "unknown"])
def test_a_target_that_is_a_number_but_for_one_is_refused_with_its_line(tmp_path: Path, task: str, token: str) -> None:
    cells = [str(row) for row in range(59)]
    cells.insert(40, token)
    text = "a,price\n" + "".join(f"{row},{cell}\n" for row, cell in enumerate(cells))
    with pytest.raises(BadData, match=f"line 42, column 'price': '{token}' is no number") as refused:
        upload(tmp_path, text, task=task)
    assert refused.value.details["row"] == 42


# ---------------------------------------------------------------- kind 15: dates
@pytest.mark.parametrize(
    ("values", "date", "days"),
    [
        (["31/12/2024", "01/02/2024"], "%d/%m/%Y", ["2024-12-31", "2024-02-01"]),
        (["12/31/24", "02/01/24"], "%m/%d/%y", ["2024-12-31", "2024-02-01"]),
        (["31.12.2024", "1.2.2024"], "%d.%m.%Y", ["2024-12-31", "2024-02-01"]),
        (["2024/12/31", "2024/2/1"], "%Y/%m/%d", ["2024-12-31", "2024-02-01"]),
        (["1. Mai 2024", "31. Dezember 2023"], "%d %B %Y", ["2024-05-01", "2023-12-31"]),
        (["May 1, 2024", "Dec 31, 2023"], "%B %d %Y", ["2024-05-01", "2023-12-31"]),
        (["31/12/2024 10:30", "01/02/2024 0:15"], "%d/%m/%Y %H:%M", ["2024-12-31T10:30", "2024-02-01T00:15"]),
        (["2024-12-31T10:30:00+02:00", "2024-02-01T00:00:00Z"], "", ["2024-12-31T08:30", "2024-02-01"]),
    ],
)
def test_one_format_of_dates_a_column(tmp_path: Path, values: list[str], date: str, days: list[str]) -> None:
    made = upload(tmp_path, table(values, ";"))
    assert made.types["v"] == "datetime"
    assert made.inputs[0].reading is not None
    assert made.inputs[0].reading.date == date
    wanted = [(pd.Timestamp(day) - pd.Timestamp("1970-01-01")) / pd.Timedelta(days=1) for day in days]
    assert column(made.data.frame, "v")[:2] == pytest.approx(wanted)
    for ask in (made.by_rows, made.by_tensors, made.by_cells):
        assert column(ask([{"v": value} for value in values]), "v") == pytest.approx(wanted)
        assert column(ask([{"v": f"{day}Z"[:10]} for day in days]), "v")[1] == pytest.approx(int(wanted[1]))


def test_an_order_of_day_and_month_that_nothing_proves_is_not_guessed(tmp_path: Path) -> None:
    made = upload(tmp_path, table(["01/02/2024", "03/04/2024", "05/06/2024"]))
    assert made.types["v"] == "category"
    (note,) = made.result.detail.notes
    assert (note.code, note.column, note.value) == ("date_order", "v", "01/02/2024")
    assert "types=v:datetime[%d/%m/%Y]" in note.message


# ---------------------------------------------------------------- who knows better says so
def test_types_that_are_given_hold(tmp_path: Path) -> None:
    text = "zip,when,size,y\n" + "".join(
        f"{10003 + row % 4},0{row % 9 + 1}/02/2024,{row},{row % 3}\n" for row in range(30)
    )
    told = ["zip:category", "when:datetime[%d/%m/%Y]", "size:number", "y:category"]
    made = upload(tmp_path, text, types=told)
    assert made.types == {"zip": "category", "when": "datetime", "size": "number", "y": "category"}
    assert made.notes == set()
    assert set(made.data.y.tolist()) == {"0", "1", "2"}
    assert column(made.by_rows([{"zip": 10003}, {"zip": "10003"}]), "zip") == ["10003", "10003"]
    assert column(made.by_cells([{"zip": "10003"}]), "zip") == ["10003"]
    assert column(made.data.frame, "when#month")[0] == 2.0


def test_missing_texts_that_are_given_are_those(tmp_path: Path) -> None:
    made = upload(tmp_path, COUNTRIES, missing=["FR"])
    assert column(made.data.frame, "c")[:3] == ["NA", "DE", ""]
    assert in_every_format(made, "c", "NA") == {"NA"}
    assert in_every_format(made, "c", "FR") == {""}
    assert made.notes == set()
    assert column(upload(tmp_path, COUNTRIES, missing=[]).data.frame, "c")[:3] == ["NA", "DE", "FR"]


def test_a_format_with_names_of_months_may_be_given_as_it_is_written(tmp_path: Path) -> None:
    made = upload(tmp_path, table(["1. May 2024", "31. December 2023"], ";"), types=["v:datetime[%d. %B %Y]"])
    assert column(made.data.frame, "v#month")[:2] == [5.0, 12.0]
    assert column(made.by_cells([{"v": "31. December 2023"}]), "v#month") == [12.0]


def test_a_decimal_mark_that_is_given_holds(tmp_path: Path) -> None:
    text = table(["1,234", "5,678"])
    assert column(upload(tmp_path, text, decimal=",").data.frame, "v")[0] == 1.234
    assert column(upload(tmp_path, text, decimal=".").data.frame, "v")[0] == 1234


def test_integers_of_a_typed_file_may_be_labels(tmp_path: Path) -> None:
    frame = pd.DataFrame({"code": [1, 2] * 10, "y": ["p", "q"] * 10})
    made = upload(tmp_path, parquet(frame), types=["code:category"])
    assert column(made.data.frame, "code")[:2] == ["1", "2"]
    assert column(made.by_rows([{"code": 1}]), "code") == column(made.by_cells([{"code": "1"}]), "code") == ["1"]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"types": ["v"]}, "'v' is not column:type"),
        ({"types": ["v:numbr"]}, "did you mean 'number'"),
        ({"types": ["w:number"]}, "types column 'w' is not in the file"),
        ({"types": ["v:datetime[day]"]}, "no format of dates"),
        ({"types": ["v:number[%d]"]}, "no format of dates"),
        ({"types": ["v:number", "v:category"]}, "given twice"),
        ({"decimal": ";"}, "must be a point or a comma"),
    ],
)
def test_what_cannot_hold_is_a_bad_request(tmp_path: Path, options: dict[str, Any], says: str) -> None:
    with pytest.raises(BadRequest, match=says):
        upload(tmp_path, table(["1", "2"]), **options)


@pytest.mark.parametrize("kind", ["number", "integer", "boolean", "datetime"])
def test_a_value_that_is_none_of_the_given_type_is_named_with_its_line(tmp_path: Path, kind: str) -> None:
    with pytest.raises(BadData, match="line 3, column 'v': 'x' is ") as refused:
        upload(
            tmp_path, table([{"boolean": "true", "datetime": "2024-01-01"}.get(kind, "1"), "x"]), types=[f"v:{kind}"]
        )
    assert refused.value.code == "wrong_type"


def test_a_typed_column_cannot_be_just_anything(tmp_path: Path) -> None:
    frame = pd.DataFrame({"when": pd.to_datetime(["2024-01-01", "2024-02-01"] * 10), "y": ["p", "q"] * 10})
    with pytest.raises(BadRequest, match=r"'when' has the type timestamp.* it cannot be number"):
        upload(tmp_path, parquet(frame), types=["when:number"])


# ---------------------------------------------------------------- how a text file is written
ROWS = "".join(f"{row}.5~caf\xe9 {row % 3}~{'pq'[row % 2]}\n" for row in range(20))


def test_a_separator_and_an_encoding_that_are_given_hold(tmp_path: Path) -> None:
    for encoding in ("latin-1", "utf-16", "cp1252"):
        made = upload(tmp_path, ("v~c~y\n" + ROWS).encode(encoding), separator="~", encoding=encoding)
        assert made.types == {"v": "number", "c": "category", "y": "category"}
        assert set(column(made.data.frame, "c")) == {"caf\xe9 0", "caf\xe9 1", "caf\xe9 2"}


def test_a_file_without_a_header_has_numbered_columns(tmp_path: Path) -> None:
    made = upload(tmp_path, ROWS.replace("~", ";"), header="none")
    assert made.types == {"column_1": "number", "column_2": "category", "column_3": "category"}
    assert made.result.rows == 20
    with pytest.raises(BadData, match="line 2, column 'column_1': inf is not a finite"):
        upload(tmp_path, "1.5,p\ninf,q\n" * 5, header="none")
    with pytest.raises(BadData, match="if it is, say header=none"):
        upload(tmp_path, ROWS.replace("~", ";"))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"separator": ";;"}, "separator is ';;'"),
        ({"separator": '"'}, "neither a quote"),
        ({"encoding": "latin-one"}, "encoding is 'latin-one'"),
        ({"encoding": "base64"}, "encoding is 'base64'"),
        ({"header": "second"}, "first or none"),
    ],
)
def test_a_form_of_text_that_cannot_be(tmp_path: Path, options: dict[str, Any], says: str) -> None:
    with pytest.raises(BadRequest, match=says):
        upload(tmp_path, table(["1", "2"]), **options)


def test_a_form_of_text_for_what_is_none(tmp_path: Path) -> None:
    frame = pd.DataFrame({"a": [1, 2] * 5, "y": ["p", "q"] * 5})
    with pytest.raises(BadRequest, match="this one is parquet"):
        upload(tmp_path, parquet(frame), encoding="latin-1")


def test_what_is_not_in_the_given_encoding_is_named_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(BadData, match="not in utf-16") as refused:
        upload(tmp_path, b"a,y\n1,p\n2,q\n3", encoding="utf-16")
    assert refused.value.code == "encoding"


# ---------------------------------------------------------------- kind 4: quotes
def test_what_a_csv_download_has_in_quotes_comes_back_as_it_was(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {
            "code": ["NA", "10001", " red", "true", "1.5", None] * 5,
            "size": [1.5, 2.5, None, 4.0, 5.0, 6.0] * 5,
            "when": pd.to_datetime(["2024-01-01", "2024-02-01"] * 15),
            "ok": [True, False] * 15,
            "y": ["0", "1"] * 15,
        }
    )
    first = upload(tmp_path, parquet(frame))
    out = tmp_path / "content.csv"
    to_csv(first.result.parts[0].path, str(out), header=True)
    assert out.read_text().startswith('code,size,when,ok,y\n"NA",1.5,')
    again = upload(tmp_path, out.read_bytes())
    assert again.result.digest == first.result.digest
    assert again.types == first.types
    pd.testing.assert_frame_equal(again.data.frame, first.data.frame)
    for value in ("NA", "10001", " red", "true"):
        assert in_every_format(again, "code", value) == {value}


def test_quotes_as_r_writes_them(tmp_path: Path) -> None:
    """NA without quotes is missing, also in a column of texts."""
    rows = ['"10003",NA,"p"', 'NA,2.5,"q"', '"04711",3,"p"', '"a,b",4,"q"'] * 5
    made = upload(tmp_path, '"zip","v","y"\n' + "\n".join(rows) + "\n")
    assert made.types == {"zip": "category", "v": "number", "y": "category"}
    assert column(made.data.frame, "zip")[:4] == ["10003", "", "04711", "a,b"]
    assert column(made.data.frame, "v")[:2] == [None, 2.5]
    assert in_every_format(made, "zip", "NA") == {""}


@pytest.mark.parametrize(
    "text",
    [
        '"v","y"\n' + '"1","p"\n"2","q"\n' * 10,  # all quoted
        "v;y\n" + "1;p\n2;q\n" * 10,  # none
        "v,y\n" + '"1,234",p\n"5,678",q\n' * 10,  # only where it is needed
    ],
)
def test_quotes_that_say_nothing(tmp_path: Path, text: str) -> None:
    assert upload(tmp_path, text).types["v"] == "integer"


# ---------------------------------------------------------------- kinds 5 and 6: what only counts rows
def shuffled() -> pd.DataFrame:
    frame = pd.DataFrame({"size": [float(row % 7) + 0.5 for row in range(30)], "y": ["p"] * 15 + ["q"] * 15})
    return frame.sample(frac=1, random_state=0)


@pytest.mark.parametrize("kind", ["parquet", "feather"])
def test_the_index_of_a_shuffled_frame_is_no_column(tmp_path: Path, kind: str) -> None:
    out = io.BytesIO()
    if kind == "parquet":
        shuffled().to_parquet(out)
    else:
        table = pa.Table.from_pandas(shuffled())
        with pa.ipc.new_file(out, table.schema) as writer:
            writer.write_table(table)
    made = upload(tmp_path, out.getvalue())
    assert made.types == {"size": "number", "y": "category"}
    assert made.result.target == "y"
    assert made.notes == {("index_left_out", "__index_level_0__")}
    assert made.result.detail.dropped_columns == ["__index_level_0__"]


def test_an_index_with_a_name_is_a_column(tmp_path: Path) -> None:
    frame = shuffled().set_index(pd.date_range("2024-01-01", periods=30, name="when"))
    out = io.BytesIO()
    frame.to_parquet(out)
    made = upload(tmp_path, out.getvalue(), target="y")
    assert made.types == {"size": "number", "y": "category", "when": "datetime"}
    assert made.notes == set()


@pytest.mark.parametrize("order", ["sorted", "shuffled", "from one"])
def test_a_nameless_column_that_says_which_row_it_is_is_left_out(tmp_path: Path, order: str) -> None:
    frame = shuffled() if order == "shuffled" else shuffled().reset_index(drop=True)
    if order == "from one":
        frame.index = frame.index + 1
    made = upload(tmp_path, frame.to_csv())
    assert made.types == {"size": "number", "y": "category"}
    assert made.notes == {("index_left_out", "column_1")}
    assert upload(tmp_path, frame.to_csv(), types=["column_1:integer"]).types["column_1"] == "integer"


def test_columns_with_a_name_that_may_only_name_rows_are_noted(tmp_path: Path) -> None:
    rows = [f"{row},u{row:03d},{row * 7 % 31},{row / 7},{'pq'[row % 2]}\n" for row in range(30)]
    made = upload(tmp_path, "n,user,seven,ratio,y\n" + "".join(rows))
    assert set(made.types) == {"n", "user", "seven", "ratio", "y"}
    assert made.notes == {("row_numbers", "n"), ("unique_per_row", "user"), ("unique_per_row", "seven")}

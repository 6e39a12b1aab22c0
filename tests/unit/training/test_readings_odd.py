"""Files of many tools and habits: what looks like a number or a date and is none, and what does not look so and is."""

import io
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pa_parquet
import pytest

from parvada.columns import ColumnError
from serving.errors import BadInput
from tests.unit.training.asked import Uploaded, upload
from training.errors import BadData, BadRequest


def col(values: list[str], delimiter: str = ",") -> str:
    """Sixty rows of these values."""
    cells = [values[row % len(values)] for row in range(60)]
    rows = [f'"{cell}"' if delimiter in cell else cell for cell in cells]
    return f"v{delimiter}y\n" + "".join(f"{cell}{delimiter}{'pq'[row % 2]}\n" for row, cell in enumerate(rows))


def among(many: str, *few: str) -> list[str]:
    """Sixty values, these few at the end."""
    return [*(many.format(row) for row in range(60 - len(few))), *few]


def features(made: Uploaded) -> list[Any]:
    return [None if value != value else value for value in made.data.frame["v"].tolist()]


def codes(made: Uploaded) -> list[str]:
    return [note.code for note in made.result.detail.notes]


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["2024-01-05 10:30:15", "2024-01-06 10:31:15"], "datetime"),
        (["2024-01-05T10:30", "2024-01-06T10:31"], "datetime"),
        (["2024-01-05 10:30:00+00", "2024-01-06 10:31:00+00"], "datetime"),
        (["2024-1-5", "2024-11-25"], "datetime"),
        (["31-Dec-2024", "1-Jan-2024"], "datetime"),
        (["31-DEC-24", "01-JAN-24"], "datetime"),
        (["2024/12/31", *(f"{day:02d}/11/2024" for day in range(1, 29))], "datetime"),
        (["24-01-15", "24-02-20", "23-12-31"], "category"),
        (["3.10.14", "3.9.18", "3.8.19", "3.11.10"], "category"),
        (["1.2.3", "1.2.4"], "category"),
        (["10:30", "11:45"], "category"),
        ([f"192.168.178.{number}" for number in range(100, 160)], "category"),
        ([f"+33 612 345 1{number:02d}" for number in range(60)], "text"),
        ([f"612 345 {number}" for number in range(678, 738)], "category"),
        (among("1{:04d}", "01234", "02345"), "category"),
        (["(5.00)", *(f"{n}.50" for n in range(59))], "category"),
        (["5.00-", *(f"{n}.50" for n in range(59))], "category"),
        (["yes", "no"], "category"),
        (["0x1F", "0x2A"], "category"),
        (["\u22125.5", "3", "4"], "number"),
        (["\u22125", "3"], "integer"),
        (["5 %", "6", "7 %"], "category"),
        (["5 %", "6 %", "17 %"], "integer"),
        (["1,234", "12,345,678,901,234,567,890"], "category"),
        (among("${},234.50", "-"), "number"),
        (["-", *(f"${n}.50" for n in range(59))], "number"),
    ],
)
def test_what_looks_like_it(tmp_path: Path, values: list[str], kind: str) -> None:
    made = upload(tmp_path, col(values, "\t"))
    assert made.types["v"] == kind
    assert ("long_integers" in codes(made)) == (values[0] == "1,234")
    assert (None in features(made)) == ("-" in values or values[0] == "2024/12/31")


@pytest.mark.parametrize(
    "values",
    [["3.9", "3.10", "4.0"], among("{}", "x" * 500), among("{}", *["-"] * 6), among("{}.5", *["\\N"] * 12)],
)
def test_labels_for_want_of_numbers_are_noted(tmp_path: Path, values: list[str]) -> None:
    made = upload(tmp_path, col(values))
    if values[0] == "3.9":
        assert made.types["v"] == "number"
        return
    assert made.types["v"] == "category"
    assert values[-1] == "x" * 500 or codes(made) == ["kept_as_labels"]
    assert len(json.dumps([column.name for column in made.result.detail.columns])) < 100
    assert all(len(note.message) < 300 for note in made.result.detail.notes)


@pytest.mark.parametrize("kind", ["int8", "uint8", "int16", "uint64"])
def test_small_integers_of_parquet(tmp_path: Path, kind: str) -> None:
    frame = pd.DataFrame({"v": np.array([row % 2 for row in range(300)], kind), "b": 1.5, "y": ["p", "q"] * 150})
    out = io.BytesIO()
    frame.to_parquet(out, index=False)
    assert upload(tmp_path, out.getvalue()).types["v"] == "integer"


def test_a_code_for_missing_is_one_as_a_number_too(tmp_path: Path) -> None:
    rows = [{"v": -999 if row % 10 == 0 else row, "y": "pq"[row % 2]} for row in range(60)]
    out = io.BytesIO()
    pa_parquet.write_table(pa.Table.from_pylist(rows), out)
    files = [pd.DataFrame(rows).to_csv(index=False).encode(), "\n".join(map(json.dumps, rows)).encode(), out.getvalue()]
    for content in files:
        made = upload(tmp_path, content, missing=["-999"])
        assert made.types["v"] == "integer"
        assert made.data.frame["v"].isna().sum() == 6
        for asked in (made.by_rows([{"v": -999}]), made.by_cells([{"v": "-999"}]), made.by_cells([{"v": "-999.0"}])):
            assert asked["v"].isna().all()
    made = upload(tmp_path, files[0], missing=["-999"], types=["v:category"])
    assert made.by_rows([{"v": -999}, {"v": "-999"}])["v"].tolist() == ["", ""]


def test_what_is_told_of_missing_holds_in_quoted_columns(tmp_path: Path) -> None:
    rows = '"unknown",1,"p"\n"NA",2,"q"\n"DE",3,"p"\n' * 10
    made = upload(tmp_path, '"v","n","y"\n' + rows, missing=["unknown"])
    assert features(made)[:3] == ["", "NA", "DE"]


def test_a_quoted_file_is_asked_as_it_was_learned(tmp_path: Path) -> None:
    rows = '"NA",1,"p"\nNA,2,"q"\n"DE",3,"p"\n' * 10
    made = upload(tmp_path, '"v","n","y"\n' + rows)
    assert features(made)[:3] == ["NA", "", "DE"]
    assert made.by_csv('"v","n"\n"NA",1\nNA,2\n"DE",3\n')["v"].tolist() == ["NA", "", "DE"]


def test_quotes_are_judged_by_whole_records(tmp_path: Path) -> None:
    cells = [f'"{10001 + n % 3}","line {n}, and\nb {"word " * 200}\nc",{n},"{"pq"[n % 2]}"\n' for n in range(600)]
    assert upload(tmp_path, '"v","t","n","y"\n' + "".join(cells)).types["v"] == "category"


def test_one_typing_error_proves_no_decimal_mark(tmp_path: Path) -> None:
    rows = [f"{row if row != 7 else '7,5'}\t{row}.5\t{'pq'[row % 2]}\n" for row in range(60)]
    made = upload(tmp_path, "v\tb\ty\n" + "".join(rows))
    assert made.types == {"v": "integer", "b": "number", "y": "category"}
    assert [(note.code, note.value) for note in made.result.detail.notes] == [("not_a_value", "7,5")]


def test_numbers_that_the_given_mark_does_not_fit_are_noted(tmp_path: Path) -> None:
    made = upload(tmp_path, col([f"1.{row:03d},5" for row in range(60)], "\t"), decimal=".")
    assert made.types["v"] == "category"
    assert "have another decimal mark than '.': kept as labels" in made.result.detail.notes[0].message


def test_numbers_of_a_column_without_a_mark_have_a_point(tmp_path: Path) -> None:
    made = upload(tmp_path, col(["1", "2", "3"], ";"))
    assert made.by_cells([{"v": "5.5"}])["v"].tolist() == [5.5]


def test_a_rare_word_among_labels_that_are_digits(tmp_path: Path) -> None:
    text = "a,y\n" + "".join(f"{row},{'NR' if row % 60 == 5 else row % 5}\n" for row in range(120))
    assert upload(tmp_path, text, task="multiclass").types["y"] == "category"
    with pytest.raises(BadData, match="say types=y:category"):
        upload(tmp_path, text)


def test_labels_of_percent_are_classes(tmp_path: Path) -> None:
    text = "a,y\n" + "".join(f"{row % 7},{(5, 10, 20)[row % 3]}%\n" for row in range(60))
    assert upload(tmp_path, text).result.task == "multiclass"


def test_numbers_in_quotes_may_be_said_to_be_numbers(tmp_path: Path) -> None:
    text = "id,v,y\n" + "".join(f'{row % 7},"{row % 9}.00","{"pq"[row % 2]}"\n' for row in range(60))
    made = upload(tmp_path, text)
    assert (made.types["v"], codes(made)) == ("category", ["quoted_numbers"])
    text = "id,v,y\n" + "".join(f'{row % 7},"${row % 9 + 1},234.00","{"pq"[row % 2]}"\n' for row in range(60))
    assert upload(tmp_path, text, types=["v:number"]).types["v"] == "number"


@pytest.mark.parametrize("value", ["0000-01-01", "0001-01-01T00:00:00+02:00", "9999-12-31T23:59:59-02:00"])
def test_years_that_are_none(tmp_path: Path, value: str) -> None:
    made = upload(tmp_path, col([*(f"2024-01-{day:02d}" for day in range(1, 29)), value] * 2))
    assert made.types["v"] == "datetime"
    assert ("not_a_value") in codes(made)


def test_times_of_parquet_beyond_our_years_are_refused(tmp_path: Path) -> None:
    times = pa.array([0, 2**62], pa.timestamp("us"))
    out = io.BytesIO()
    pa_parquet.write_table(pa.table({"v": times, "y": ["p", "q"]}), out)
    with pytest.raises(BadData, match="years 1 to 9999"):
        upload(tmp_path, out.getvalue())


@pytest.mark.parametrize("value", [[1], {"a": 1}, 5])
def test_what_is_no_date_is_named(tmp_path: Path, value: object) -> None:
    for values in (["2024-01-05", "2024-12-31"], ["31/12/2024", "01/02/2024"]):
        made = upload(tmp_path, col(values))
        with pytest.raises((ColumnError, BadInput), match="is not a date"):
            made.by_rows([{"v": value}])


@pytest.mark.parametrize(
    ("content", "options", "says"),
    [
        (col(["1", "2"]), {"separator": "\u00a7"}, "one ASCII character"),
        ('{"v": 1.5, "y": "p"}\n{"v": 2.5, "y": "q"}\n' * 5, {"decimal": ","}, "for text files"),
        (col(["1", "2"]), {"missing": ["x" * 41]}, "at most 20 texts"),
    ],
)
def test_options_that_cannot_hold(tmp_path: Path, content: str, options: dict[str, Any], says: str) -> None:
    with pytest.raises(BadRequest, match=says):
        upload(tmp_path, content, **options)


def test_the_note_on_dates_shows_one(tmp_path: Path) -> None:
    made = upload(tmp_path, col(["12/31/45", "01/15/62"]))
    assert "'12/31/45' is 2045-12-31" in made.result.detail.notes[0].message


def test_the_note_on_groups_shows_groups(tmp_path: Path) -> None:
    made = upload(tmp_path, col(["5,00 \u20ac", "1 234,50 \u20ac"], ";"))
    assert "'1 234,50 \u20ac' is read as 1234.5" in " ".join(note.message for note in made.result.detail.notes)


def test_the_note_on_an_open_order_shows_a_date(tmp_path: Path) -> None:
    made = upload(tmp_path, col(["-", *(f"0{1 + row % 9}/02/2024" for row in range(59))]))
    assert "dates as '01/02/2024' may be" in made.result.detail.notes[0].message


# ---------------------------------------------------------------- found in a second round
def test_a_misfit_takes_no_number_of_the_column_with_it(tmp_path: Path) -> None:
    made = upload(tmp_path, col([*(f"{row},5" for row in range(57)), "0,0", "7,5", "7.5"], ";"))
    assert features(made)[-3:] == [0.0, 7.5, None]
    assert made.by_rows([{"v": 0}, {"v": 7.5}])["v"].tolist() == [0.0, 7.5]
    assert made.by_cells([{"v": "7,5"}])["v"].tolist() == [7.5]


def test_a_code_for_missing_has_the_form_of_its_column(tmp_path: Path) -> None:
    made = upload(tmp_path, col(["-999,0", "1,5", "2,5"], ";"), missing=["-999,0"])
    assert made.by_rows([{"v": -999}])["v"].isna().all()
    assert features(made)[:3] == [None, 1.5, 2.5]


def test_a_code_for_missing_holds_beside_a_misfit(tmp_path: Path) -> None:
    made = upload(tmp_path, col([*(str(row) for row in range(58)), "-999", "x"]), missing=["-999"])
    assert features(made)[-2:] == [None, None]
    assert made.by_rows([{"v": -999}])["v"].isna().all()
    assert made.by_cells([{"v": "-999.0"}, {"v": "x"}])["v"].isna().all()


def test_a_mark_that_may_be_either_is_noted(tmp_path: Path) -> None:
    made = upload(tmp_path, col(["950", "1.234", "12.500"], ";"))
    assert [note.code for note in made.result.detail.notes] == ["decimal_guessed"]
    assert "'1.234' is read as 1.234; it may be 1234: say decimal=" in made.result.detail.notes[0].message
    assert codes(upload(tmp_path, col(["950", "1.23", "12.500"], ";"))) == []


@pytest.mark.parametrize("first", ["sep=;\n", "sep=;\r\n", '"sep=;"\n'])
def test_the_first_line_of_excel_is_no_header(tmp_path: Path, first: str) -> None:
    text = first + col(["1,5", "2,5", "inf"], ";")
    with pytest.raises(BadData, match="line 5, column 'v'"):
        upload(tmp_path, text)
    text = text.replace("inf", "3,5")
    made = upload(tmp_path, text)
    assert made.types == {"v": "number", "y": "category"}
    assert made.by_csv(text.replace(";y", "").replace(";p", "").replace(";q", ""), None)["v"][0] == 1.5
    with pytest.raises(BadData, match="line 63 has 3 cells"):
        upload(tmp_path, text + "1;2;3\n")


def test_decimals_without_a_fraction_are_integers(tmp_path: Path) -> None:
    ids = [1234567890123456789, 1234567890123456790]
    values = pa.array([Decimal(ids[row % 2]) for row in range(60)], pa.decimal128(38, 0))
    out = io.BytesIO()
    pa_parquet.write_table(pa.table({"v": values, "y": pa.array(["p", "q"] * 30)}), out)
    made = upload(tmp_path, out.getvalue(), target="v")
    assert made.types["v"] == "integer"
    assert set(made.data.y.tolist()) == set(ids)
    assert upload(tmp_path, out.getvalue(), types=["v:category"]).types["v"] == "category"


@pytest.mark.parametrize("value", ["now", "today", "monday"])
def test_a_time_that_is_another_whenever_it_is_asked_is_none(tmp_path: Path, value: str) -> None:
    made = upload(tmp_path, col(["2024-01-05", "2024-01-06"]))
    for ask in (made.by_rows, made.by_cells, made.by_tensors):
        with pytest.raises(BadInput, match="is not a date"):
            ask([{"v": value}])


@pytest.mark.parametrize("text", ['{"v":' + "[" * 200_000 + "]" * 200_000 + ',"y":1}', "[" * 200_000])
def test_what_is_nested_too_deeply_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(BadData):
        upload(tmp_path, text + "\n")


def test_texts_of_parquet_that_are_no_texts_are_refused(tmp_path: Path) -> None:
    offsets = pa.array([0, 1, 2, 3, 4], pa.int32()).buffers()[1]
    values = pa.StringArray.from_buffers(4, offsets, pa.py_buffer(b"\xffabc"))
    out = io.BytesIO()
    pa_parquet.write_table(pa.table({"v": values, "y": ["p", "q", "p", "q"]}), out)
    with pytest.raises(BadData, match="column 'v' holds texts that are not UTF-8"):
        upload(tmp_path, out.getvalue())


def test_a_format_of_dates_that_repeats_itself_is_none(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="no format of dates"):
        upload(tmp_path, col(["1", "2"]), types=["v:datetime[%d/%d/%Y %m]"])


@pytest.mark.parametrize("delimiter", [",", ";"])
def test_the_row_names_of_r_are_left_out(tmp_path: Path, delimiter: str) -> None:
    rows = [f'"{row + 1}","{("DE", "FR")[row % 2]}",{row % 7},"{"pq"[row % 2]}"\n' for row in range(60)]
    text = '"","v","n","y"\n' + "".join(rows)
    made = upload(tmp_path, text.replace(",", delimiter))
    assert made.types == {"v": "category", "n": "integer", "y": "category"}
    assert codes(made) == ["index_left_out"]


@pytest.mark.parametrize(
    "values",
    [
        ["-"] * 1450 + [f"${row % 500}.50" for row in range(28_550)],
        ["n.a."] * 1450 + ["5.5%", "7%"] * 14_275,
        ["0"] * 1450 + [f"${row % 500}.50" for row in range(28_550)],
        ["2024-01-05"] * 1450 + [f"{1 + row % 28:02d}/12/2024" for row in range(28_550)],
        ["1 May 2024"] * 1450 + [f"{1 + row % 28:02d}/12/2024" for row in range(28_550)],
    ],
)
def test_it_does_not_matter_in_which_batches_a_file_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, values: list[str]
) -> None:
    text = "v\ty\n" + "".join(f"{value}\t{'pq'[row % 2]}\n" for row, value in enumerate(values))
    whole = upload(tmp_path, text)
    monkeypatch.setattr("training.sources.BLOCK_BYTES", 4_096)
    small = upload(tmp_path, text)
    assert small.types == whole.types
    assert small.result.digest == whole.result.digest
    assert [note.code for note in small.result.detail.notes] == [note.code for note in whole.result.detail.notes]


@pytest.mark.parametrize("options", [{}, {"types": ["v:number"]}])
def test_a_guess_about_few_of_many_numbers_is_noted(tmp_path: Path, options: dict[str, Any]) -> None:
    rows = [f"{row}\t{'pq'[row % 2]}\n" for row in range(1, 2_000)]
    made = upload(tmp_path, "v\ty\n" + "".join(rows) + "30,000\tp\n", **options)
    notes = {note.code: note.value for note in made.result.detail.notes}
    assert notes["grouped_digits"] == "30,000"
    assert features(made)[-1] == 30_000


@pytest.mark.parametrize(
    ("values", "first"),
    [
        (["2024-01-05", "2024-01-06", "soon"], "soon"),
        ([*(str(row) for row in range(40)), *(f"word {row}" for row in range(20))], "word 0"),
    ],
)
def test_labels_for_want_of_dates_or_of_many_numbers_are_noted(tmp_path: Path, values: list[str], first: str) -> None:
    made = upload(tmp_path, col(values))
    assert made.types["v"] == "category"
    assert ("kept_as_labels", first) in [(note.code, note.value) for note in made.result.detail.notes]


def test_bare_tokens_of_a_file_with_quotes_are_noted(tmp_path: Path) -> None:
    rows = [f'"DE",{"NA" if row % 3 == 1 else row % 7},"{"pq"[row % 2]}"\n' for row in range(60)]
    made = upload(tmp_path, '"v","n","y"\n' + "".join(rows))
    assert [(note.code, note.column, note.line, note.count) for note in made.result.detail.notes] == [
        ("missing_tokens", "n", 3, 20)
    ]


def test_booleans_that_are_made_labels(tmp_path: Path) -> None:
    frame = pd.DataFrame({"v": [True, False] * 30, "y": ["p", "q"] * 30})
    out = io.BytesIO()
    frame.to_parquet(out, index=False)
    made = upload(tmp_path, out.getvalue(), types=["v:category"])
    assert features(made)[:2] == ["true", "false"]
    assert made.by_rows([{"v": True}])["v"].tolist() == made.by_cells([{"v": "True"}])["v"].tolist() == ["true"]
    made = upload(tmp_path, frame.to_csv(index=False), types=["v:category"])
    assert made.by_cells([{"v": "True"}])["v"].tolist() == [features(made)[0]] == ["True"]
    with pytest.raises(BadInput, match="True is not a string"):
        made.by_rows([{"v": True}])

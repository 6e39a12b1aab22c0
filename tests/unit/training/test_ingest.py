"""Uploads: what becomes of good files, and that every kind of bad one is refused with its line and column."""

import contextlib
import errno
import gzip
import io
from pathlib import Path

import msgspec
import pandas as pd
import pyarrow as pa
import pyarrow.ipc as pa_ipc
import pyarrow.parquet as pa_parquet
import pytest
from hypothesis import given, settings, strategies as st

from training.batches import BATCH_BYTES, BATCH_VALUES
from training.distinct import Distinct
from training.errors import BadData, BadRequest, InputError
from training.export import to_csv
from training.ingest import IngestOptions, IngestResult, ingest
from training.sources import open_source

TABLE = "size,colour,when,ok,note,kind\n" + "".join(
    f"{i / 4},{'red' if i % 3 else 'blue'},2024-01-{i % 28 + 1:02d},{'true' if i % 2 else 'False'},"
    f"this is a longer remark number {i},{'a' if i % 2 else 'b'}\n"
    for i in range(60)
)


def load(folder: Path, content: bytes | str, **options: object) -> IngestResult:
    path = folder / "upload"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    out = folder / "out"
    out.mkdir(exist_ok=True)
    return ingest(str(path), msgspec.convert({"out_dir": str(out), **options}, IngestOptions))


def test_types_are_inferred_and_described(tmp_path: Path) -> None:
    result = load(tmp_path, TABLE)
    assert (result.rows, result.target, result.task) == (60, "kind", "binary")
    columns = {column.name: column for column in result.detail.columns}
    assert {name: column.type for name, column in columns.items()} == {
        "size": "number",
        "colour": "category",
        "when": "datetime",
        "ok": "boolean",
        "note": "text",
        "kind": "category",
    }
    assert columns["colour"].categories == ["blue", "red"]
    assert columns["size"].mean == pytest.approx(7.375)
    assert columns["size"].std == pytest.approx(pd.Series([i / 4 for i in range(60)]).std(ddof=0))
    assert result.detail.smallest_class == 30


def test_same_content_gives_the_same_digest_in_every_format(tmp_path: Path) -> None:
    frame = pd.read_csv(io.StringIO("a,b,y\n" + "".join(f"{i / 8},{i},{'u' if i % 2 else 'v'}\n" for i in range(50))))
    parquet, feather = io.BytesIO(), io.BytesIO()
    frame.to_parquet(parquet)
    frame.to_feather(feather, compression="uncompressed")
    text = frame.to_csv(index=False)
    forms: list[bytes | str] = [
        text,
        "\ufeff" + text,
        text.replace("\n", "\r\n"),
        gzip.compress(text.encode()),
        frame.to_csv(index=False, sep="\t"),
        frame.to_csv(index=False, sep="|"),
        frame.to_csv(index=False, sep=";", decimal=","),
        frame.to_json(orient="records"),
        frame.to_json(orient="records", lines=True),
        parquet.getvalue(),
        feather.getvalue(),
    ]
    assert len({load(tmp_path, form).digest for form in forms}) == 1
    assert load(tmp_path, text.replace("0.125", "0.126")).digest != load(tmp_path, text).digest


def test_another_weight_or_group_is_other_content(tmp_path: Path) -> None:
    """Else to give them later would find that the version is there already, and be ignored."""
    text = "a,b,y\n" + "".join(f"{i / 8},{i % 5},{'u' if i % 2 else 'v'}\n" for i in range(50))
    roles: tuple[dict[str, object], ...] = ({}, {"weight": "b"}, {"weight": "a"}, {"group": "b"})
    digests = [load(tmp_path, text, **role).digest for role in roles]
    assert len(set(digests)) == len(roles)
    assert load(tmp_path, text, group="b").digest == digests[-1]


BAD: list[tuple[str, bytes | str, dict[str, object], str, str]] = [
    ("binary", b"\x00\x01\x02" * 100, {}, "not_a_table", "binary"),
    ("zip", b"PK\x03\x04....", {}, "not_a_table", "zip or Excel"),
    ("prose", "hello world\nthis is text\n", {}, "not_a_table", "only one column"),
    ("empty", "", {}, "empty_file", "empty"),
    ("blank lines", "\n \n", {}, "empty_file", "empty"),
    ("header only", "a,b\n", {}, "header_only", "no rows"),
    ("no header", "5.1,3.5,x\n4.9,3.0,y\n", {}, "no_header", "looks like data"),
    ("ragged", "a,b\n1,x\n2,y,z\n", {}, "ragged_row", "line 3 has 3 cells where the header has 2"),
    ("ragged after a cell of two lines", 'a,b\n"1\n1",x\n2\n', {}, "ragged_row", "line 4 has 1 cells"),
    ("open quote", 'a,b\n1,"x\n2,y\n3,x\n', {}, "not_a_table", "line 2"),
    ("duplicate column", "a,b,a\n1,2,3\n", {}, "duplicate_column", "'a' appears 2 times (columns 1, 3)"),
    ("latin-1", "a,b\n1,x\n2,caf\xe9\n".encode("latin-1"), {}, "encoding", "line 3: byte 0xE9 is not UTF-8"),
    ("utf-16", "a,b\n1,2\n".encode("utf-16"), {}, "not_a_table", "UTF-16"),
    ("target missing", "a,price\n1,2\n2,3\n", {"target": "prize"}, "target_missing", "did you mean 'price'?"),
    ("constant target", "a,b\n1,x\n2,x\n", {}, "constant_target", "one value 'x' in all 2 rows"),
    ("constant number", "a,b\n1,5\n2,5\n", {"task": "regression"}, "constant_target", "one value 5"),
    ("no target value", "a,b\n1,\n2,NA\n", {}, "no_target_values", "no row has a value"),
    ("identifier as target", "a,b\n1,x\n2,y\n3,z\n", {}, "too_many_classes", "another value in each"),
    ("infinity", "a,b\n1,x\ninf,y\n", {}, "not_finite", "line 3, column 'a'"),
    ("text for regression", "a,b\n1,x\n2,y\n3,x\n", {"task": "regression"}, "target_type", "needs numbers"),
    ("three classes for binary", "a,b\n1,x\n2,y\n3,z\n4,x\n", {"task": "binary"}, "target_type", "3 classes"),
    ("negative weight", "a,w,b\n1,1,x\n2,-1,y\n", {"weight": "w"}, "negative_weight", "line 3"),
    ("missing group", "a,g,b\n1,p,x\n2,,y\n", {"group": "g"}, "missing_group", "line 3"),
    ("damaged gzip", b"\x1f\x8b\x08\x00....", {}, "not_a_table", "gzip"),
    ("damaged parquet", b"PAR1........", {}, "not_a_table", "parquet"),
    ("bomb", gzip.compress(b"a,b\n" + b"1,2\n" * 100_000), {"max_bytes": 10_000}, "too_large", "decompresses"),
    ("json of numbers", "[1, 2]", {}, "not_a_table", "record 1"),
    ("nested json", '{"a": 1, "b": 2}\n{"a": [1], "b": 2}\n', {}, "unsupported_type", "column 'a', row 2"),
    ("nothing to learn from", "a,b\n1,x\n2,y\n", {"drop": ["a"]}, "no_features", "no column is left"),
]


@pytest.mark.parametrize(("content", "options", "code", "says"), [row[1:] for row in BAD], ids=[row[0] for row in BAD])
def test_bad_data_is_refused_with_its_place(
    tmp_path: Path, content: bytes | str, options: dict[str, object], code: str, says: str
) -> None:
    with pytest.raises(BadData) as caught:
        load(tmp_path, content, **options)
    assert caught.value.code == code
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"drop": ["siez"]}, "did you mean 'size'?"),
        ({"task": "regresion"}, "did you mean 'regression'?"),
        ({"format": "cvs"}, "did you mean 'csv'?"),
        ({"weight": "w"}, "weight column 'w' is not in the file"),
        ({"target": "kind", "drop": ["kind"]}, "cannot be dropped"),
    ],
)
def test_bad_options_are_refused(tmp_path: Path, options: dict[str, object], says: str) -> None:
    with pytest.raises(BadRequest, match=says.replace("?", r"\?")):
        load(tmp_path, TABLE, **options)


ODD_NAMES = ("Prix\u00a0HT", "Code\n postal", "Ver\u00adkauf", "a, b", "\U0001f6b2", "y")


def odd(kind: str) -> bytes:
    table = pa.table({name: [f"{name[0]}{row % 2}" for row in range(8)] for name in ODD_NAMES})
    if kind in ("jsonl", "csv"):
        frame = table.to_pandas()
        written = frame.to_json(orient="records", lines=True) if kind == "jsonl" else frame.to_csv(index=False)
        return str(written).encode()
    return _as(table, kind)


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet", "arrow"])
def test_names_are_kept_as_they_are_and_meant_by_what_they_look_like(tmp_path: Path, kind: str) -> None:
    result = load(tmp_path, odd(kind), target="Verkauf", drop=["Prix HT", "Prix\u00a0HT", "a, b"], group="Code postal")
    assert (result.target, result.detail.group) == ("Ver\u00adkauf", "Code\n postal")
    assert result.detail.dropped_columns == ["Prix\u00a0HT", "a, b"]
    assert [column.name for column in result.detail.columns] == ["Code\n postal", "Ver\u00adkauf", "\U0001f6b2", "y"]


def test_odd_names_come_back_from_the_csv_that_is_given(tmp_path: Path) -> None:
    first = load(tmp_path, odd("parquet"))
    to_csv(first.parts[0].path, str(tmp_path / "given.csv"), header=True)
    (tmp_path / "again").mkdir()
    assert load(tmp_path / "again", (tmp_path / "given.csv").read_bytes()).digest == first.digest


def test_names_that_look_alike_are_two_columns(tmp_path: Path) -> None:
    table = "a b,a\u00a0b,y\n" + "1,2,p\n3,4,q\n" * 3
    assert load(tmp_path, table, drop=["a b"]).detail.dropped_columns == ["a b"]
    with pytest.raises(BadRequest, match=r"drop: 'a  b' may mean any of the columns 'a b', 'a\\xa0b'") as refused:
        load(tmp_path, table, drop=["a  b"])
    assert (refused.value.code, refused.value.details["columns"]) == ("ambiguous_column", ["a b", "a\u00a0b"])


@pytest.mark.parametrize("control", ["\x01", "\x1b", "\x7f", "\x9b"])
def test_a_name_that_controls_a_device_is_refused_with_its_place(tmp_path: Path, control: str) -> None:
    with pytest.raises(BadData, match=r"^column 2 is named 'b") as refused:
        load(tmp_path, f"a,b{control},y\n1,2,p\n")
    assert refused.value.details == {"column": 2}


@pytest.mark.parametrize("separator", ["\n", ","])
def test_a_nested_column_that_is_dropped_may_hold_anything(tmp_path: Path, separator: str) -> None:
    rows = separator.join(
        ['{"a":1,"tags":{"x":[1]},"b":"p"}', '{"a":2,"tags":["x",{}],"b":"q"}', '{"a":3,"b":"q"}'] * 2
    )
    result = load(tmp_path, rows if separator == "\n" else f"[{rows}]", drop=["tags"])
    assert ([column.name for column in result.detail.columns], result.rows) == (["a", "b"], 6)
    assert result.detail.dropped_columns == ["tags"]


def test_rows_without_target_are_dropped_and_counted(tmp_path: Path) -> None:
    result = load(tmp_path, "a,b\n1,x\n2,\n3,y\n4,NaN\n5,x\n")
    assert (result.rows, result.detail.dropped_rows, result.detail.smallest_class) == (3, 2, 1)


def test_very_wide_tables_keep_the_counts_of_their_target_alone(tmp_path: Path) -> None:
    """The description is replicated: it must not grow by what few would ask for."""
    names = [f"column_{number}" for number in range(1_999)]
    rows = [",".join([*(str((row + number) % 7) for number in range(len(names))), "ab"[row % 2]]) for row in range(20)]
    columns = load(tmp_path, "\n".join([",".join([*names, "y"]), *rows])).detail.columns
    assert [column.name for column in columns if column.smallest is not None] == ["y"]
    few = load(tmp_path, "a,b,y\n1,5,u\n1,6,v\n2,6,v\n").detail.columns
    assert [(column.smallest, column.rarest, column.largest) for column in few] == [(1, 2, 2), (1, 5, 2), (1, "u", 2)]


def test_leading_zeros_are_labels_not_numbers(tmp_path: Path) -> None:
    result = load(tmp_path, "zip,b\n00123,1.5\n04711,2.5\n00123,3.25\n")
    assert result.detail.columns[0].type == "category"
    assert result.task == "regression"


def test_parts_are_cut_by_rows_and_independent_of_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "a,b\n" + "".join(f"{i},{i % 2}\n" for i in range(5_000))
    monkeypatch.setattr("training.parts.PART_ROWS", 2_500)
    monkeypatch.setattr("training.parts._GROUP_VALUES", 2_048)
    whole = load(tmp_path, text)
    monkeypatch.setattr("training.sources.BLOCK_BYTES", 4_096)
    small_blocks = load(tmp_path, text)
    assert [part.rows for part in whole.parts] == [2_048, 2_048, 904]
    assert whole.digest == small_blocks.digest
    read = [value for part in whole.parts for value in pa_parquet.read_table(part.path)["a"].to_pylist()]
    assert read == list(range(5_000))


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=300) | st.text(max_size=200).map(str.encode))
def test_any_bytes_give_a_dataset_or_a_sentence(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    with contextlib.suppress(InputError):
        result = load(tmp_path_factory.mktemp("any"), content)
        assert result.rows > 1


# ---------------------------------------------------------------- memory and disk
def _wide(rows: int) -> pa.Table:
    long = pa.array([f"{number:06d}" * 20 for number in range(rows)])
    return pa.table({**{f"x{column}": pa.array(range(rows)) for column in range(8)}, "note": long})


def _as(table: pa.Table, kind: str, compression: str | None = None) -> bytes:
    out = io.BytesIO()
    if kind == "parquet":
        pa_parquet.write_table(table, out, row_group_size=table.num_rows)
    else:
        make = pa_ipc.new_file if kind == "arrow" else pa_ipc.new_stream
        with make(out, table.schema, options=pa_ipc.IpcWriteOptions(compression=compression)) as writer:
            writer.write_table(table)  # in one batch
    return out.getvalue()


@pytest.mark.parametrize("kind", ["parquet", "arrow", "stream"])
def test_one_huge_batch_is_read_in_small_ones(tmp_path: Path, kind: str) -> None:
    """Whoever wrote the file chose its batches; what they take here is ours to bound."""
    table = _wide(120_000)
    (tmp_path / "file").write_bytes(_as(table, kind))
    source, _ = open_source(tmp_path / "file", "parquet" if kind == "parquet" else "arrow", tmp_path, 1 << 40)
    batches = list(source.batches())
    assert len(batches) > 3
    assert max(batch.num_rows * batch.num_columns for batch in batches) <= BATCH_VALUES
    assert max(batch.nbytes for batch in batches) <= 2 * BATCH_BYTES
    assert pa.Table.from_batches(batches).equals(table)


@pytest.mark.parametrize("kind", ["arrow", "stream"])
@pytest.mark.parametrize("compression", [None, "zstd"])
def test_arrow_keeps_to_the_bound_on_what_it_becomes(tmp_path: Path, kind: str, compression: str | None) -> None:
    content = _as(pa.table({"x": pa.array([7] * 100_000), "y": pa.array([1, 2] * 50_000)}), kind, compression)
    assert load(tmp_path, content, format="arrow", max_bytes=2_000_000).rows == 100_000
    with pytest.raises(BadData) as refused:
        load(tmp_path, content, format="arrow", max_bytes=1_000_000)
    assert refused.value.code == "too_large"


def test_parts_keep_to_the_room_there_is(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="used up") as refused:
        load(tmp_path, TABLE, room=100)
    assert refused.value.errno == errno.ENOSPC


def test_a_gzipped_file_unpacks_only_into_the_room_there_is(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="used up"):
        load(tmp_path, gzip.compress(TABLE.encode() * 100), room=1000)


@given(st.lists(st.lists(st.integers(0, 30), max_size=20), max_size=10), st.integers(1, 40))
def test_distinct_values_are_counted_up_to_the_bound_however_they_come(batches: list[list[int]], most: int) -> None:
    counter = Distinct(1, most)
    for batch in batches:
        counter.update(pa.array(batch, pa.int64()))
    wanted = list(dict.fromkeys(value for batch in batches for value in batch))
    assert counter.values() == wanted[:most]
    assert counter.exact == (len(wanted) <= most)


def test_long_texts_are_counted_up_to_their_memory() -> None:
    counter = Distinct(100)
    for number in range(200):
        counter.update(pa.array([f"{number}" + "x" * 10_000]))
    assert not counter.exact
    assert 0 < len(counter) < 30

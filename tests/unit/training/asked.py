"""A file as it is uploaded, and the features that a model sees: in training, and when it is asked in any format."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pandas as pd

from parvada.schema import InputField, OutputField, Signature
from serving.payload import CsvCodec, JsonCodec, to_features
from serving.payload_v2 import DATATYPE_OF, V2Codec
from serving.view import VersionView
from training.frames import Prepared, prepare
from training.ingest import ingest
from training.tasks import DataView
from training.upload import IngestOptions, IngestResult

MOST = 1_000_000


class Uploaded(msgspec.Struct, frozen=True):
    """What became of a file."""

    result: IngestResult
    inputs: list[InputField]
    data: Prepared

    @property
    def types(self) -> dict[str, str]:
        return {column.name: column.type for column in self.result.detail.columns}

    @property
    def notes(self) -> set[tuple[str, str | None]]:
        """Code and column of each note."""
        return {(note.code, note.column) for note in self.result.detail.notes}

    @property
    def version(self) -> VersionView:
        outputs = [OutputField(name="predict", type="category")]
        signature = Signature(inputs=self.inputs, outputs=outputs)
        return VersionView(1, "0" * 64, 1, "multiclass", "Dummy", "sklearn", signature)

    # ---- the features of a request
    def by_csv(self, text: str, delimiter: str | None = ",") -> pd.DataFrame:
        return self._asked(CsvCodec(MOST, delimiter), text.encode())

    def by_cells(self, rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
        """CSV with the cells as they are."""
        out = io.StringIO()
        writer = csv.DictWriter(out, [field.name for field in self.inputs])
        writer.writeheader()
        writer.writerows(rows)
        return self.by_csv(out.getvalue())

    def by_rows(self, rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
        return self._asked(JsonCodec(MOST), json.dumps({"rows": rows}).encode())

    def by_data(self, rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
        names = [field.name for field in self.inputs]
        data = [[row.get(name) for name in names] for row in rows]
        return self._asked(JsonCodec(MOST), json.dumps({"columns": names, "data": data}).encode())

    def by_tensors(self, rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
        inputs = [
            {
                "name": field.name,
                "shape": [len(rows)],
                "datatype": DATATYPE_OF[field.type],
                "data": [row.get(field.name) for row in rows],
            }
            for field in self.inputs
        ]
        return self._asked(V2Codec(MOST), json.dumps({"inputs": inputs}).encode())

    def _asked(self, codec: Any, body: bytes) -> pd.DataFrame:
        return to_features(codec.decode(body, self.version), self.version)


def upload(folder: Path, content: bytes | str, **options: Any) -> Uploaded:
    path = folder / "upload"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    out = folder / "out"
    out.mkdir(exist_ok=True)
    result = ingest(str(path), msgspec.convert({"out_dir": str(out), **options}, IngestOptions))
    roles = {result.target, result.detail.weight, result.detail.group}
    inputs = [
        InputField(name=column.name, type=column.type, required=False, reading=column.reading)
        for column in result.detail.columns
        if column.name not in roles
    ]
    view = DataView(result.target, result.task, inputs, result.detail.weight, result.detail.group)
    data = prepare(result.digest + str(folder), [part.path for part in result.parts], view)
    return Uploaded(result, inputs, data)

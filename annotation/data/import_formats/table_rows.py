"""Rows of files with typed columns: Parquet, Arrow, Excel (.xlsx)."""

import math
import zipfile
from collections.abc import Iterator
from typing import Any, BinaryIO

import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
from openpyxl.utils.exceptions import InvalidFileException

from annotation.data.import_formats import limits
from annotation.data.import_formats.csv_rows import cell_value, checked_header
from annotation.data.import_formats.limits import MIB
from annotation.data.import_formats.report import FileError, ImportReport, Row, RowError

ROWS_AT_ONCE = 256
MAX_ROW_GROUP = 512 * MIB
MAX_SHARED_STRINGS = 64 * MIB
"""Bytes of the texts of a workbook, which its reader holds in memory."""
MAX_COLUMNS = 1_000


def parquet_rows(stream: BinaryIO, report: ImportReport) -> Iterator[tuple[int, Row]]:
    """Each row of a Parquet file with its number."""
    report.noun, report.has_header = "Row", True
    try:
        file = pq.ParquetFile(stream, pre_buffer=False)
        for index in range(file.metadata.num_row_groups):
            size = file.metadata.row_group(index).total_byte_size
            if size > MAX_ROW_GROUP:
                raise FileError(
                    f"Row group {index + 1} of the Parquet file unpacks to {size // MIB:,} MiB; "
                    f"write it with row groups of at most {MAX_ROW_GROUP // MIB} MiB."
                )
        yield from _rows_of_batches(file.iter_batches(batch_size=ROWS_AT_ONCE, use_threads=False))
    except (pa.ArrowException, OSError) as error:
        raise FileError(f"The Parquet file is damaged ({str(error)[:80]}).") from error


def arrow_rows(stream: BinaryIO, report: ImportReport, kind: str) -> Iterator[tuple[int, Row]]:
    """Each row of an Arrow file, or of an Arrow stream as `datasets` saves it."""
    report.noun, report.has_header = "Row", True
    try:
        if kind == "arrow stream":
            yield from _rows_of_batches(iter(pa.ipc.open_stream(stream)))
        else:
            file = pa.ipc.open_file(stream)
            batches = (file.get_batch(index) for index in range(file.num_record_batches))
            yield from _rows_of_batches(batches)
    except (pa.ArrowException, OSError) as error:
        raise FileError(f"The Arrow file is damaged ({str(error)[:80]}).") from error


def _rows_of_batches(batches: Iterator[pa.RecordBatch]) -> Iterator[tuple[int, Row]]:
    number = 0
    for batch in batches:
        # A batch may hold a whole row group: objects are made of a few rows at a time.
        for start in range(0, batch.num_rows, ROWS_AT_ONCE):
            for row in batch.slice(start, ROWS_AT_ONCE).to_pylist():
                number += 1
                yield number, {name: as_json(value) for name, value in row.items()}


def as_json(value: Any) -> Any:
    """The value as JSON has it: no NaN, and text for dates, decimals and bytes."""
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None  # NaN is how pandas writes a missing value
    if isinstance(value, dict):
        return {str(key): as_json(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_json(part) for part in value]
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def check_workbook(archive: zipfile.ZipFile) -> None:
    """FileError if the parts of an .xlsx file unpack to more than its reader can hold."""
    for part in archive.infolist():
        most = (
            MAX_SHARED_STRINGS if "sharedStrings" in part.filename else limits.max_unpacked(2**62)
        )
        if part.file_size > most:
            raise FileError(
                f"The spreadsheet holds more than {most // MIB} MiB of text; save it as CSV."
            )


def excel_rows(stream: BinaryIO, report: ImportReport) -> Iterator[tuple[int, Row]]:
    """Rows of the first sheet below its header, with the number that the spreadsheet shows."""
    report.noun, report.has_header = "Row", True
    try:
        book = openpyxl.load_workbook(stream, read_only=True, data_only=True)
        if len(book.worksheets) > 1:
            report.notes["only the first sheet of the workbook was read"] += 1
        sheet = book.worksheets[0]
        sheet.reset_dimensions()  # what the file says about its size may be wrong
        header: list[str] = []
        for number, cells in enumerate(sheet.iter_rows(values_only=True), start=1):
            if not any(cell not in (None, "") for cell in cells):
                continue
            if not header:
                names = [str(cell or "") for cell in cells[:MAX_COLUMNS]]
                header = checked_header(names)
                continue
            try:
                values = [_cell(cell) for cell in cells[: len(header)]]
            except RowError as error:
                report.n_rows += 1
                report.add_problem(number, str(error))
                continue
            yield number, {name: value for name, value in zip(header, values, strict=False) if name}
    except (
        InvalidFileException,
        zipfile.BadZipFile,
        KeyError,
        ValueError,
        IndexError,
        OSError,
    ) as error:
        raise FileError(
            f"The Excel file is damaged ({str(error)[:80]}); save it again, or as CSV."
        ) from error


def _cell(value: Any) -> Any:
    if isinstance(value, str):
        return cell_value(value)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return as_json(value)

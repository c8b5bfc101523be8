"""Tables from csv and parquet files: what is between the cells, whether the first line has names of columns."""

import csv
import gzip
import io
import re

import numpy as np

from .reading import FEW, VALUE, Refused, all_different, check_size, decoding, imported

__all__ = ["table"]

LONGEST_LINE = 2**20     # characters
HEAD = 100               # lines of a csv file that show what is between its cells
SEPARATORS = {           # between cells, and for decimals; and the words for them
    (",", "."): "", (";", "."): " (semicolons)", (";", ","): " (semicolons, decimal commas)",
    ("\t", "."): " (tabs)", ("\t", ","): " (tabs, decimal commas)", (r"\s+", "."): " (spaces)"}


def table(path, kind):
    """The numbers of a csv or parquet file, (N, d), the words for what was read, and the names of the columns."""
    needed = f"{kind.removesuffix('.gz')[1:]} files need pandas and pyarrow"
    if kind != ".parquet":
        return _csv(path, *imported(needed, "pandas"))
    return _parquet(path, *imported(needed, "pandas", "pyarrow.parquet", "pyarrow.types"))


def _parquet(path, pd, parquet, types):
    """The numbers of a parquet file, the words for it, and the names of its columns; its index is left out."""
    with decoding(path, "parquet table"), parquet.ParquetFile(path) as file:
        check_size(path, VALUE * file.metadata.num_rows * file.metadata.num_columns)
        fields = file.schema_arrow
        index = [name for name in (fields.pandas_metadata or {}).get("index_columns", []) if isinstance(name, str)]
        fields = [field for field in fields if field.name not in index]
        numeric = types.is_integer, types.is_floating, types.is_boolean, types.is_null
        others = [f"{field.name} ({field.type})" for field in fields if not any(test(field.type) for test in numeric)]
        if others:                                                         # which may be large, and are not decoded
            raise Refused(f"{path} has other things than numbers in {len(others)} of {len(fields)} columns, "
                          f"{_some(others)}: remove them, or make them numbers")
        cells = file.read(columns=[field.name for field in fields]).to_pandas()
    names, named = [str(name) for name in cells], [name for name in index if not name.startswith("__index_level_")]
    without = f", without its index{' ' * bool(named)}{_some(named)}" if index else ""
    return _numbers(path, cells, names, pd), "parquet table" + without, names


def _numbers(path, table, names, pd):
    """The table as an array, if it has two columns or more, all of numbers."""
    if table.shape[1] < 2:
        raise Refused(f"{path} has one column: at least two are needed, in a csv file with commas between them")
    numeric = [pd.api.types.is_numeric_dtype(kind) for kind in table.dtypes]
    empty = [name for name, missing in zip(names, table.isna().all(), strict=True) if missing and len(table)]
    text = [name for name, is_numeric in zip(names, numeric, strict=True) if not is_numeric]
    if empty:
        raise Refused(f"{path} has no values in {len(empty)} of {len(names)} columns, {_some(empty)}: remove them")
    if text:
        cells = table.iloc[:, numeric.index(False)].dropna().astype(str)
        example = "".join(f", such as {cell!r}" for cell in cells[pd.to_numeric(cells, errors="coerce").isna()][:1])
        raise Refused(f"{path} has text or dates in {len(text)} of {len(names)} columns, {_some(text)}{example}: "
                      "remove them, or make them numbers, with decimal points and nothing between thousands")
    return table.to_numpy(dtype=float, na_value=np.nan)


def _some(names):
    return ", ".join(name if isinstance(name, str) else f"{name:.9g}" for name in names[:5]) + ", …" * (len(names) > 5)


def _csv(path, pd):
    """The numbers of a csv file, the words for it, and the names of its columns."""
    head, body, words, without = _parsed(path, pd)
    named = _has_names(head, body, pd)
    names = [str(name) if named and not pd.isna(name) else f"number {i}" for i, name in enumerate(head, 1)]
    if named and (pd.isna(head[0]) or names[0].startswith("Unnamed: ")):   # as pandas and R write names of rows
        if pd.api.types.is_numeric_dtype(body[0]) and not all_different(body[0].to_numpy(float)):
            raise Refused(f"the first column of {path} has no name, and does not number the rows: give it a name if it "
                          "is data, or remove it")
        head, names, body = head[1:], names[1:], body.iloc[:, 1:]
        without = ", without its first, which has none" + without
    x = _numbers(path, body, names, pd)
    if named is None:
        raise Refused(f"the first line of {path}, {_some(head)}, may be names of columns or numbers of a row: if it is "
                      "names, remove it; if it is a row, put a line of names above it, with letters")
    if not named:
        return np.vstack([np.array([head], float), x]), f"{words} without names of columns{without}", names
    numbers = "" if any(isinstance(name, str) for name in head) else f", which are numbers: {_some(head)}"
    return x, f"{words} with names of columns{numbers}{without}", names


def _parsed(path, pd):
    """The cells of the first line of a csv file, the others as a table, and words for how they were found."""
    with decoding(path, "csv table"):
        encoding, lines, first, comments = _lines(path)
        if len(lines) < 2:
            raise Refused(f"{path} has fewer than two lines: there are no data")
        cell, decimal = max(SEPARATORS, key=lambda pair: _share_of_numbers(lines[1:], *pair))
        if decimal == "," and _may_be_thousands(lines[1:]):
            raise Refused(f"the commas in {path} may be decimal commas or commas between thousands: write the numbers "
                          "with decimal points, and nothing between thousands")
        how = {"header": None, "sep": cell, "decimal": decimal, "encoding": encoding, "skipinitialspace": True,
               "low_memory": False}
        try:
            head = list(pd.read_csv(io.StringIO(lines[0]), **how).iloc[0])
            if any(isinstance(cell, str) for cell in head):                # then NA is a name, too
                head = list(pd.read_csv(io.StringIO(lines[0]), **how, keep_default_na=False, na_values=[""]).iloc[0])
        except pd.errors.ParserError as error:
            raise Refused(f"the first line of {path} has a quotation mark without its partner: write the names of "
                          "columns without line breaks and quotation marks") from error
        body = pd.read_csv(path, skiprows=[first, *comments], **how)
    while len(head) > body.shape[1] and pd.isna(head[-1]):                 # commas at the ends of lines
        head = head[:-1]
    while body.shape[1] > 1 and body.iloc[:, -1].isna().all() and (len(head) < body.shape[1] or pd.isna(head[-1])):
        head, body = head[: body.shape[1] - 1], body.iloc[:, :-1]
    if len(head) != body.shape[1]:
        raise Refused(f"{path} has {len(head)} cells in its first line, and {body.shape[1]} in others: make it one "
                      "name for each column, or remove it. With decimal commas, use semicolons between cells")
    return head, body, "csv table" + SEPARATORS[cell, decimal], ", without lines that begin with #" * bool(comments)


def _lines(path):
    """The encoding of a csv file, its first lines, the number of the first, and the numbers of comments."""
    opened = gzip.open if path.name.lower().endswith(".gz") else open
    for encoding in ("utf-8-sig", "latin-1"):                              # every byte is a letter of the latter
        try:
            with opened(path, "rt", encoding=encoding) as file:
                return encoding, *_look_through(path, file)
        except UnicodeDecodeError:
            pass


def _look_through(path, file):
    lines: list[str] = []
    first, comments, before, needed = None, [], 0, 0
    for part in iter(lambda: file.read(LONGEST_LINE) + file.readline(LONGEST_LINE), ""):
        needed += len(part) + VALUE * (part.count("\n") + max(*map(part.count, ",;\t"), len(part.split())))
        check_size(path, needed)
        if len(part) == 2 * LONGEST_LINE:
            raise Refused(f"{path} has a line of more than {LONGEST_LINE} characters: put each row on a line")
        if "\0" in part:
            raise Refused(f"{path} is no text in UTF-8: save the table as csv, in UTF-8")
        for number, line in enumerate(part.split("\n"), before) if len(lines) < HEAD or "#" in part else ():
            if line.startswith("#") and not line.startswith(("#N/A", "#NA")):
                comments.append(number)
            elif line.strip() and len(lines) < HEAD:
                first = number if first is None else first
                lines.append(line)
        before += part.count("\n")
    return lines, first, comments


def _share_of_numbers(lines, cell, decimal):
    """The share of numbers among the cells, if there is more than one cell in a line."""
    try:
        rows = [line.split() if cell == r"\s+" else next(csv.reader([line], delimiter=cell)) for line in lines]
    except csv.Error:                                                      # of a cell that is longer than any number
        return 0
    cells = [text.strip() for row in rows for text in row]
    return sum(_is_number(text, decimal) for text in cells) / len(cells) if len(cells) > len(lines) else 0


def _may_be_thousands(lines):
    """Whether there are numbers with commas, and all are like 84,256, which is 84 256 or 84.256."""
    cells = re.findall(r"-?\d*(?:,\d+)+", "\n".join(lines))
    return bool(cells) and all(re.fullmatch(r"-?[1-9]\d{0,2}(,\d{3})+", cell) for cell in cells)


def _is_number(text, decimal):
    try:
        float(text if decimal == "." else text.replace(".", "?").replace(",", "."))
    except ValueError:
        return text == ""
    return True


def _has_names(head, body, pd):
    """Whether the first line has names of columns; None if that is not clear."""
    text = np.array([isinstance(cell, str) for cell in head])
    numbers = np.array([np.nan if isinstance(cell, str) else cell for cell in head], float)
    given = np.isfinite(numbers)
    if not text.any() and not given[1:].all():
        return False                                                       # a row with missing values
    if not given.any():
        return True
    others = body.loc[:, given].apply(pd.to_numeric, errors="coerce").to_numpy(float)
    if not given[0] and not text.any() and _counts(numbers[given]):        # above a column with the names of the rows
        return True
    named = _are_names(numbers[given], others[np.isfinite(others).all(1)], text.any())
    return named if named or not text.any() else None


def _are_names(first, rows, beside_text):
    """Whether a line of numbers is names of columns, other than the rows below it; None if that is not clear.

    Numbers in a few columns may look like names by chance. They are names if they are beside text, far from the rows
    in most of the columns, or more than five; or if they count from 0 and the rows are not whole numbers."""
    counts = _counts(first)
    if counts and (beside_text or _looks(rows)[0].sum() <= 0.01 * len(rows)):  # or the rows are no whole numbers
        return True
    if len(rows) < FEW - 1:
        return None if counts else False
    low, high = rows.min(0), rows.max(0)
    far = (np.abs(first - (low + high) / 2) > 1.5 * (high - low)).mean() > 0.5
    alike = min(_looks(rows).mean(1)[_looks(first[None])[:, 0]], default=1)
    if alike < 0.01 and len(set(first)) == len(first) and (far or beside_text or len(first) > 5):
        return True
    return None if counts or alike < 0.05 or far else False


def _counts(first):
    """Whether a line is 0, 1, 2, …, as pandas writes for columns without names."""
    return (first == range(len(first))).all()


def _looks(rows):
    """Which rows are of whole numbers, which are in order, which are evenly spaced: shape (3, N)."""
    steps = np.diff(rows)
    in_order = ((steps > 0).all(1) | (steps < 0).all(1)) & (rows.shape[1] > 2)
    even = in_order & np.isclose(steps, steps[:, :1], rtol=1e-6, atol=0).all(1)
    return np.stack([(rows == np.round(rows)).all(1), in_order, even])

"""Every kind of file is read right, or refused in words that say what to do; a damaged or hostile one too."""

import gzip
import io
import os
import sys
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet
import pytest
from PIL import Image

from dimlib.apply import files, reading

DRAW = np.random.default_rng(0)
X = DRAW.normal(size=(40, 3)).round(3)
COUNTS = DRAW.integers(0, 256, size=(40, 8))
LONG = np.random.default_rng(1).normal(size=(12, 30_000)).round(3)         # lines of 200 thousand characters
GREY = DRAW.integers(0, 256, size=(12, 3, 4), dtype=np.uint8)
RGB = DRAW.integers(0, 256, size=(12, 3, 4, 3), dtype=np.uint8)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def save_images(folder, arrays, suffix="png"):
    os.mkdir(folder)
    for i, array in enumerate(arrays):
        Image.fromarray(array).save(f"{folder}/{i:02}.{suffix}")


def named(columns):
    return pd.DataFrame(X, columns=columns)


def lines(x=X, cell=",", decimal=".", end=""):
    """The text of a csv file."""
    return "".join(cell.join(f"{v:g}".replace(".", decimal) for v in row) + end + "\n" for row in x)


def write(text, encoding="utf-8"):
    def to(path):
        with open(path, "w", encoding=encoding) as file:
            file.write(text)
    return to


NAMES, NUMBERS = "csv table with names of columns", "csv table with names of columns, which are numbers: "
PLAIN = "csv table without names of columns"

# name, how to make it, what is read, and the words for it
KINDS = {
    "a.npy": (lambda p: np.save(p, X), X, "array"),
    "images.npy": (lambda p: np.save(p, GREY), GREY, "array"),
    "one.npz": (lambda p: np.savez(p, data=X), X, "array 'data'"),
    "names.csv": (lambda p: named(["u", "v", "w"]).to_csv(p, index=False), X, NAMES),
    "plain.csv": (write(lines()), X, PLAIN),
    "counts.csv": (write(lines(COUNTS)), COUNTS, PLAIN),
    "counted.csv": (lambda p: named([0, 1, 2]).to_csv(p, index=False), X, NUMBERS + "0, 1, 2"),
    "indexed.csv": (lambda p: named(["u", "v", "w"]).to_csv(p), X, NAMES + ", without its first, which has none"),
    "both.csv": (lambda p: named([0, 1, 2]).to_csv(p), X, NUMBERS + "0, 1, 2, without its first, which has none"),
    "again.csv": (lambda p: named(["u", "v", "w"]).rename_axis("Unnamed: 0").to_csv(p), X,
                  NAMES + ", without its first, which has none"),
    "texts.csv": (lambda p: named(["u", "v", "w"]).set_axis([f"row {i}" for i in range(40)]).to_csv(p), X,
                  NAMES + ", without its first, which has none"),
    "packed.csv.gz": (lambda p: named([0, 1, 2]).to_csv(p, index=False, header=False), X, PLAIN),
    "UPPER.CSV": (lambda p: named(["u", "v", "w"]).to_csv(p, index=False), X, NAMES),
    "waves.csv": (write("400,402,404\n" + lines()), X, NUMBERS + "400, 402, 404"),
    "steps.csv": (write("10.5,11.1,11.7\n" + lines()), X, NUMBERS + "10.5, 11.1, 11.7"),
    "years.csv": (write("1990,1995,2001\n" + lines()), X, NUMBERS + "1990, 1995, 2001"),
    "spectra.csv": (write("400,402,404,406,408,410,412,414\n" + lines(COUNTS)), COUNTS,
                    NUMBERS + "400, 402, 404, 406, 408, …"),
    "log.csv": (write("1.5,2.1,4.7,9.3,17.1,40.2,81.1,99.9\n" + lines(COUNTS)), COUNTS,
                NUMBERS + "1.5, 2.1, 4.7, 9.3, 17.1, …"),
    "pivot.csv": (lambda p: named([400, 402, 404]).to_csv(p), X,
                  NUMBERS + "400, 402, 404, without its first, which has none"),
    "mixed.csv": (write("a,1,2\n" + lines()), X, NAMES),
    "na.csv": (write("NA,b,c\n" + lines()), X, NAMES),
    "semicolon.csv": (write("a;b;c\n" + lines(cell=";")), X, "csv table (semicolons) with names of columns"),
    "comma.csv": (write(lines(cell=";", decimal=",")), X,
                  "csv table (semicolons, decimal commas) without names of columns"),
    "tab.csv": (write("a\tb\tc\n" + lines(cell="\t")), X, "csv table (tabs) with names of columns"),
    "space.csv": (lambda p: np.savetxt(p, X, header="u v w"), X,
                  "csv table (spaces) without names of columns, without lines that begin with #"),
    "padded.csv": (write("a, b, c\n" + lines(cell=", ")), X, NAMES),
    "ends.csv": (write("a,b,c\n" + lines(end=",")), X, NAMES),
    "all_ends.csv": (write("a,b,c,\n" + lines(end=",")), X, NAMES),
    "first_end.csv": (write("a,b,c,\n" + lines()), X, NAMES),
    "plain_ends.csv": (write(lines(end=",,")), X, PLAIN),
    "latin.csv": (write("Größe,b,c\n" + lines(), "latin-1"), X, NAMES),
    "bom.csv": (write("11,12,14\n" + lines(), "utf-8-sig"), X, NUMBERS + "11, 12, 14"),
    "comments.csv": (write("# by a program, in 2024\n\n# two\na,b,c\n" + lines(X[:20]) + "#x\n" + lines(X[20:])), X,
                     NAMES + ", without lines that begin with #"),
    "wide.csv": (lambda p: pd.DataFrame(COUNTS).to_csv(p, index=False), COUNTS, NUMBERS + "0, 1, 2, 3, 4, …"),
    "whole.csv": (lambda p: pd.DataFrame(COUNTS[:, :3]).to_csv(p), COUNTS[:, :3],
                  NUMBERS + "0, 1, 2, without its first, which has none"),
    "long_lines.csv": (write(lines(LONG, ";")), LONG, "csv table (semicolons) without names of columns"),
    "long_commas.csv": (write(lines(LONG)), LONG, PLAIN),
    "inches.csv": (write('5",6",b\n' + lines()), X, NAMES),
    "a.parquet": (lambda p: named(["u", "v", "w"]).to_parquet(p), X, "parquet table"),
    "index.parquet": (lambda p: named(["u", "v.1", "w"]).set_axis(COUNTS[:, 0]).to_parquet(p), X,
                      "parquet table, without its index"),
    "k.parquet": (lambda p: named(["u", "v", "w"]).set_axis([*map(str, X[:, 0])]).rename_axis("k").to_parquet(p), X,
                  "parquet table, without its index k"),
    "kinds.parquet": (lambda p: pd.DataFrame({"a": pd.array([1, 2], "Int64"), "b": [True, False], "c": [1.5, 2]})
                      .to_parquet(p), np.array([[1, 1, 1.5], [2, 0, 2]]), "parquet table"),
    "grey": (lambda p: save_images(p, GREY), GREY[:, None] / np.float32(255), "folder of images, 4×3 grey"),
    "rgb": (lambda p: save_images(p, RGB, "bmp"), np.moveaxis(RGB, -1, 1) / np.float32(255),
            "folder of images, 4×3 RGB"),
}


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_file_is_read(name):
    make, expected, words = KINDS[name]
    make(name)
    x, found = files.read(name)
    assert found == words and x.shape == expected.shape and (x == expected).all()


def test_numbers_beside_a_word_are_names_also_above_whole_numbers():
    Path("a.csv").write_text("target,0,1\n" + "\n".join(f"{i % 3},{i * i % 11},{i * i % 7}" for i in range(40)))
    assert files.read("a.csv")[0].shape == (40, 3)


def test_an_array_of_an_npz_is_chosen_by_its_key():
    np.savez("two.npz", a=X, b=X[:20])
    assert files.read("two.npz", "b")[0].shape == (20, 3)


def test_jpegs_transparent_and_black_and_white_images_are_read():
    save_images("jpg", RGB, "jpg")
    assert files.read("jpg")[0].shape == (12, 3, 3, 4)
    for mode, shape in {"RGBA": (3, 3, 4), "P": (3, 3, 4), "LA": (1, 3, 4), "1": (1, 3, 4)}.items():
        os.mkdir(mode)
        Image.fromarray(RGB[0]).convert("L" if mode == "LA" else "RGB").convert(mode).save(f"{mode}/a.png")
        x, _ = files.read(mode)
        assert x.shape == (1, *shape) and 0 <= x.min() < x.max() <= 1


UNCLEAR = "may be names of columns or numbers of a row: if it is names, remove it; if it is a row, put a line of names"

# name, the first line of a csv file whose other lines are numbers, the error
FIRST_LINES = {
    "far.csv": ("400.5,22.1,404.7", f"the first line of far.csv, 400.5, 22.1, 404.7, {UNCLEAR}"),
    "two.csv": ("0,1", "the first line of two.csv, 0, 1, may be"),
    "three.csv": ("0,1,2", "the first line of three.csv, 0, 1, 2, may be"),
    "four.csv": ("0,1,2,3", "the first line of four.csv, 0, 1, 2, 3, may be"),
    "start.csv": ("1,0,2", f"the first line of start.csv, 1, 0, 2, {UNCLEAR}"),
    "mark.csv": ("2.5,?,3.1", f"the first line of mark.csv, 2.5, ?, 3.1, {UNCLEAR}"),
    "miss.csv": (",2.5,3.1", "1 of the 41 rows of miss.csv have missing or infinite values"),
    "last.csv": ("2.5,3.1,", "1 of the 41 rows of last.csv have missing or infinite values"),
    "na.csv": ("2.5,NA,3.1", "1 of the 41 rows of na.csv have missing or infinite values"),
    "noname.csv": (",b,c", "the first column of noname.csv has no name, and does not number the rows: give it a name"),
    "shorter.csv": ("b,c", "shorter.csv has 2 cells in its first line, and 3 in others: make it one name for each"),
    "longer.csv": ("1,2,3,4", "longer.csv has 4 cells in its first line, and 3 in others"),
}


@pytest.mark.parametrize("name", FIRST_LINES)
def test_a_first_line_that_is_not_clear_is_refused_and_no_row_is_lost(name):
    first, message = FIRST_LINES[name]
    whole = COUNTS[:, : first.count(",") + 1]                              # below numbers that count from 0
    write(first + "\n" + lines(whole if first.startswith("0,1") else X))(name)
    with pytest.raises(ValueError) as error:
        files.read(name)
    assert message in str(error.value)


def test_numbers_in_a_first_row_are_rarely_taken_for_names():
    """Few files are refused, and none loses a row."""
    refused = 0
    for _ in range(25):
        for x in (DRAW.normal(size=(30, 2)), DRAW.normal(size=(30, 4)), DRAW.integers(0, 9, size=(30, 3)),
                  DRAW.normal(size=(30, 12)).cumsum(1), np.sort(DRAW.normal(size=(30, 6)))):
            write(lines(x))("x.csv")
            try:
                assert files.read("x.csv")[1] == PLAIN
            except ValueError as error:
                assert UNCLEAR in str(error)
                refused += 1
    assert refused <= 4


@pytest.mark.parametrize("name, column", {
    "index": np.arange(40), "n": np.arange(1, 41), "k": DRAW.permutation(40), "back": np.arange(40)[::-1],
    "gaps": 7 * np.arange(40) + np.arange(40) ** 2, "user_id": DRAW.permutation(1000)[:40],
    "SubjectID": DRAW.permutation(1000)[:40],
    "ID_patient": DRAW.permutation(1000)[:40]}.items())
def test_a_column_that_numbers_the_rows_is_refused_in_a_table_and_named_in_an_array(name, column):
    table = pd.DataFrame({"u": X[:, 0], name: column, "w": X[:, 2]})
    message = f"column {name} of x.{{}} numbers the rows, and would count as a dimension: remove it"
    table.to_csv("x.csv", index=False)
    table.to_parquet("x.parquet")
    for kind in ("csv", "parquet"):
        with pytest.raises(ValueError, match=message.format(kind)):
            files.read(f"x.{kind}")
    if "id" not in name.lower():
        table.to_csv("x.csv", index=False, header=False)
        with pytest.raises(ValueError, match="column number 2 of x.csv numbers the rows"):
            files.read("x.csv")
        np.save("x.npy", table.to_numpy())
        x, words = files.read("x.npy")
        assert x.shape == (40, 3) and words == "array (its column 1 numbers the rows: remove it if it is not data)"


def mixed(p):
    save_images(p, [GREY[0], GREY[1], GREY[2, :2]])


def member(content):
    def to(path):
        np.savez(path, a=X)
        with zipfile.ZipFile(path, "a") as file:
            file.writestr("b.npy", content)
    return to


def header(shape):
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "<f8", "fortran_order": False, "shape": shape})
    return file.getvalue()


def cut(make, length):
    def to(path):
        make(path)
        os.truncate(path, length)
    return to


def sparse(path):
    """A file of 80 GB that takes no room on the disk."""
    with open(path, "wb") as file:
        file.write(header((10**6, 10**4)))
        file.truncate(file.tell() + 8 * 10**10)


def zeros(path):
    with gzip.open(path, "wb") as file:
        for _ in range(3):
            file.write(bytes("0" * 10**6, "ascii"))


def white(size):
    def to(path):
        os.mkdir(path)
        Image.new("1", (size, size)).save(f"{path}/a.png")
    return to


def frames(suffix, **options):
    def to(path):
        os.mkdir(path)
        first, *others = map(Image.fromarray, RGB[:3])
        first.save(f"{path}/a.{suffix}", save_all=True, append_images=others, **options)
    return to


# name, how to make it, the key, the error
BAD = {
    "missing.npy": (lambda p: None, None, "there is no file or folder missing.npy"),
    "a.xlsx": (write("?"), None, "a.xlsx is no npy, npz, csv, csv.gz or parquet file, and no folder"),
    "a.npy.gz": (write("?"), None, "a.npy.gz is no npy, npz, csv, csv.gz or parquet file, and no folder"),
    "broken.npy": (write("?"), None, "broken.npy is damaged, or is no file of numbers that NumPy has saved"),
    "short.npy": (cut(lambda p: np.save(p, X), 300), None, "short.npy is damaged, or is no file of numbers"),
    "sparse.npy": (sparse, None, "sparse.npy may need 560 GB of memory, and "),
    "empty.npz": (write(""), None, "empty.npz is damaged, or is no file of numbers"),
    "cut.npz": (cut(lambda p: np.savez(p, a=X), 500), None, "cut.npz is damaged, or is no file of numbers"),
    "noarray.npz": (np.savez, None, "noarray.npz has the arrays (none)"),
    "object.npy": (lambda p: np.save(p, np.array([[{}, {}]])), None, "object.npy is damaged, or is no file of numbers"),
    "object.npz": (lambda p: np.savez(p, a=np.array([[{}, {}]])), None, "array 'a' of object.npz is damaged, or is no"),
    "text.npz": (member("hello"), "b", "'b' in text.npz is no array that NumPy has saved: choose another"),
    "claim.npz": (member(header((10**6, 10**6))), "b", "array 'b' of claim.npz is damaged"),
    "two.npz": (lambda p: np.savez(p, a=X, b=X), None, "two.npz has the arrays a, b: choose one by its key"),
    "other.npz": (lambda p: np.savez(p, a=X), "c", "other.npz has the arrays a, and no 'c'"),
    "key.npy": (lambda p: np.save(p, X), "c", "key 'c' names an array of an npz file, and key.npy is none"),
    "words.npy": (lambda p: np.save(p, np.array([["a", "b"]])), None, "words.npy holds <U1, not real numbers"),
    "complex.npy": (lambda p: np.save(p, 1j * X), None, "complex.npy holds complex128, not real numbers"),
    "flat.npy": (lambda p: np.save(p, X[:, 0]), None, "flat.npy has shape (40,): rows of at least two columns"),
    "norows.npy": (lambda p: np.save(p, X[:0]), None, "norows.npy has shape (0, 3): rows of at least two columns"),
    "nan.npy": (lambda p: np.save(p, np.where(X > 2, np.nan, X)), None, "of the 40 rows of nan.npy have missing or"),
    "empty.csv": (write(""), None, "empty.csv has fewer than two lines: there are no data"),
    "line.csv": (write("1,2,3\n"), None, "line.csv has fewer than two lines"),
    "one.csv": (write("a\n" + lines(X[:, :1])), None, "one.csv has one column: at least two are needed, in a csv file"),
    "text.csv": (write("a,kind,b\n1,cat,3\n2,dog,5\n"), None,
                 "text.csv has text or dates in 1 of 3 columns, kind, such as 'cat': remove them, or make them"),
    "latin.csv": (write("Größe,b\nklein,1\n", "latin-1"), None, "in 1 of 2 columns, Größe, such as 'klein'"),
    "mark.csv": (write("a,b\n1,2\n1,?\n3,4\n"), None, "columns, b, such as '?'"),
    "point.csv": (write('a,b\n"1,5",2\n"2,5",3\n'), None, "such as '1,5': remove them, or make them numbers, with dec"),
    "thousands.csv": (write("a;b\n84,256;999\n1,024;17\n-12,345,678;4\n"), None,
                      "may be decimal commas or commas between"),
    "wide.csv": (write("a,b,c\n" + lines(decimal=",")), None, "With decimal commas, use semicolons between cells"),
    "hole.csv": (write("a,b,c\n1,,2\n3,,4\n"), None, "hole.csv has no values in 1 of 3 columns, b: remove them"),
    "gaps.csv": (write("a,b\n1,2\n3,\n"), None, "1 of the 2 rows of gaps.csv have missing"),
    "long.csv": (write("a,b\n1,2\n4,5,6\n"), None, "Expected 2 fields in line 3, saw 3"),
    "utf16.csv": (write("a,b\n1,2\n", "utf-16"), None, "utf16.csv is no text in UTF-8: save the table as csv, in"),
    "cut.csv.gz": (cut(lambda p: named([0, 1, 2]).to_csv(p), 200), None, "cut.csv.gz is damaged, or is no csv table"),
    "plain.csv.gz": (write(lines()), None, "plain.csv.gz is damaged, or is no csv table: Not a gzipped file"),
    "zeros.csv.gz": (zeros, None, "zeros.csv.gz has a line of more than 1048576 characters"),
    "broken.parquet": (write("?"), None, "broken.parquet is damaged, or is no parquet table"),
    "line_break.csv": (write('"a\nb",c\n1,2\n3,4\n'), None,
                       "the first line of line_break.csv has a quotation mark without its partner: write the names"),
    "text.parquet": (lambda p: pd.DataFrame({"a": ["x"], "b": [1]}).to_parquet(p), None,
                     "text.parquet has other things than numbers in 1 of 2 columns, a ("),
    "lists.parquet": (lambda p: pd.DataFrame({"a": [[1, 2]], "b": [1]}).to_parquet(p), None, "a (list<element: int64>"),
    "noimages": (os.mkdir, None, "folder noimages has no images: .bmp, .jpeg"),
    "sizes": (mixed, None, "02.png is 4×2 grey, and 00.png is 4×3 grey: make all the same"),
    "colours": (lambda p: save_images(p, [GREY[0], RGB[0]]), None, "01.png is 4×3 RGB, and 00.png is 4×3 grey"),
    "deep": (lambda p: save_images(p, [GREY[0].astype(np.uint16)]), None, "has the mode I;16: save it as grey or RGB"),
    "nopng": (lambda p: [os.mkdir(p), write("?")(f"{p}/a.png")], None, "a.png is damaged, or is no image"),
    "cutpng": (lambda p: [save_images(p, GREY[:1]), os.truncate(f"{p}/00.png", 50)], None, "00.png is damaged, or"),
    "pages": (frames("tif"), None, "a.tif has 3 pages or frames: save each as an image of its own"),
    "moving": (frames("png"), None, "a.png has 3 pages or frames: save each as an image of its own"),
    "web": (frames("webp", lossless=True), None, "a.webp has 3 pages or frames: save each as an image of its own"),
    "huge": (white(20000), None, "a.png is damaged, or is no image of less than 90 million pixels"),
    "large": (white(9600), None, "a.png is damaged, or is no image of less than 90 million pixels"),
    "pipe.csv": (os.mkfifo, None, "pipe.csv is a pipe or a device: save the data as a file first"),
    "pipes": (lambda p: [os.mkdir(p), os.mkfifo(f"{p}/a.png")], None, "a.png is no file: remove it from the folder"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_used_is_refused_in_words(name):
    make, key, message = BAD[name]
    make(name)
    with pytest.raises((ValueError, FileNotFoundError)) as error:
        files.read(name, key)
    assert message in str(error.value)


@pytest.mark.parametrize("name", ["a.npy", "one.npz", "names.csv", "packed.csv.gz", "a.parquet", "grey"])
def test_what_needs_too_much_memory_is_refused(name, monkeypatch):
    KINDS[name][0](name)
    monkeypatch.setattr(reading, "MOST_BYTES", 500)
    with pytest.raises(ValueError, match=f"{name} may need .* GB of memory, and 5e-07 GB are the most"):
        files.read(name)
    monkeypatch.setattr(reading, "MOST_BYTES", 4e9)
    monkeypatch.setattr(reading, "memory", lambda device: 1000)
    with pytest.raises(ValueError, match="and 8e-07 GB are the most"):
        files.read(name)


@pytest.mark.parametrize("save, path", [(np.save, "bytes.npy"), (np.savez, "bytes.npz")])
def test_what_a_fit_needs_counts_and_not_the_bytes_in_the_file(save, path, monkeypatch):
    save(path, COUNTS.astype(np.uint8))
    monkeypatch.setattr(reading, "MOST_BYTES", 8 * COUNTS.size)            # in float64, without its copies
    with pytest.raises(ValueError, match=f"{path} may need .* GB of memory"):
        files.read(path)


def test_a_column_of_text_is_refused_before_it_is_decoded(monkeypatch):
    pd.DataFrame({"a": ["x"], "b": [1]}).to_parquet("text.parquet")
    monkeypatch.setattr(pyarrow.parquet.ParquetFile, "read", None)         # calling it would be another error
    monkeypatch.setattr(pd, "read_parquet", None)
    with pytest.raises(ValueError, match="text.parquet has other things than numbers"):
        files.read("text.parquet")


def test_a_photograph_with_a_preview_is_one_image():
    os.mkdir("photos")
    first, second = map(Image.fromarray, RGB[:2])
    first.save("photos/a.jpg", "MPO", save_all=True, append_images=[second])
    assert files.read("photos")[0].shape == (1, 3, 3, 4)


@pytest.mark.parametrize("name", ["a.npy", "one.npz", "names.csv", "packed.csv.gz", "a.parquet"])
def test_a_damaged_file_is_read_or_refused(name):
    KINDS[name][0](name)
    with open(name, "rb") as file:
        whole = file.read()
    for _ in range(20):
        damaged = bytearray(whole)
        damaged[DRAW.integers(len(whole))] = DRAW.integers(256)
        with open(name, "wb") as file:
            file.write(damaged[: DRAW.integers(len(whole) // 2, 2 * len(whole))])
        try:
            files.read(name)
        except reading.Refused as error:
            assert name in str(error)


@pytest.mark.parametrize("missing, name, message", [
    ("pandas", "names.csv", "csv files need pandas and pyarrow: pip install 'dimlib[data]'"),
    ("pyarrow", "a.parquet", "parquet files need pandas and pyarrow: pip install 'dimlib[data]'"),
    ("PIL", "grey", "images need Pillow: pip install 'dimlib[data]'")])
def test_what_is_not_installed_is_named_with_its_extra(missing, name, message, monkeypatch):
    KINDS[name][0](name)
    for module in [module for module in sys.modules if module.split(".")[0] == missing]:
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ModuleNotFoundError) as error:
        files.read(name)
    assert str(error.value) == message

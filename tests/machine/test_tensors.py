"""Files that are replaced in one step, and whose damage is noticed."""

import os
import stat
import subprocess
import sys

import numpy as np
import pytest
import torch

from dimlib.machine.tensors import locked, read_tensors, replacing, write_tensors


def test_a_file_is_replaced_at_the_end(tmp_path):
    path = tmp_path / "new" / "folder" / "file"
    with replacing(path) as unfinished:
        unfinished.write_text("one")
        assert not path.exists()
    with replacing(path) as unfinished:
        unfinished.write_text("two")
        assert path.read_text() == "one"
    assert path.read_text() == "two" and [p.name for p in path.parent.iterdir()] == ["file"]


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(RuntimeError), replacing(path) as unfinished:
        unfinished.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["file"]


def test_two_writers_do_not_share_a_temporary_file(tmp_path):
    path = tmp_path / "file"
    with replacing(path) as a, replacing(path) as b:
        a.write_text("a")
        b.write_text("b")
        assert a != b
    assert path.read_text() == "a"  # the one that ended last


@pytest.mark.skipif(os.name != "posix", reason="permissions are those of POSIX")
def test_the_file_has_the_permissions_of_any_new_file(tmp_path):
    with replacing(tmp_path / "ours") as unfinished:
        unfinished.write_text("x")
    (tmp_path / "plain").write_text("x")
    assert stat.S_IMODE((tmp_path / "ours").stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)


@pytest.mark.skipif(os.name != "posix", reason="pipes are those of POSIX")
def test_a_device_or_a_pipe_is_refused_and_stays(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="pipe is a device or a pipe: give the name"), replacing(tmp_path / "pipe"):
        pytest.fail("the work has begun")
    with pytest.raises(OSError, match="pipe is a device or a pipe: give the name"):
        read_tensors(tmp_path / "pipe", "thing")                           # without waiting for somebody who writes
    assert [p.is_fifo() for p in tmp_path.iterdir()] == [True]


@pytest.mark.skipif(os.name != "posix", reason="links are those of POSIX")
def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "file").write_text("old")
    (tmp_path / "link").symlink_to("file")
    with replacing(tmp_path / "link") as unfinished:
        unfinished.write_text("new")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "file").read_text() == "new"


def test_one_flipped_bit_is_noticed_wherever_it_is(tmp_path):
    path, tensors = tmp_path / "file", {"a": torch.arange(9.0), "b": torch.tensor(3), "c": torch.zeros(0, 2)}
    write_tensors(tensors, path, "thing", {"n": 1})
    good, rng, found = path.read_bytes(), np.random.default_rng(0), 0
    for _ in range(200):
        bad = bytearray(good)
        at = rng.integers(len(bad))
        bad[at] ^= 1 << rng.integers(8)
        path.write_bytes(bad)
        try:
            read = read_tensors(path, "thing")
        except ValueError as error:
            found += "SHA-256" in str(error) or "is no such file" in str(error)
        else:
            assert read[1] == {"n": 1} and all(torch.equal(t, read[0][k]) for k, t in tensors.items())
    assert found > 150  # the others are in spaces


def test_numbers_of_numpy_come_back_as_numbers(tmp_path):
    header = {"n": np.int64(3), "rates": [np.float32(0.5)], "yes": np.bool_(True)}
    write_tensors({"a": torch.ones(1)}, tmp_path / "file", "thing", header)
    assert repr(read_tensors(tmp_path / "file", "thing")[1]) == repr({"n": 3, "rates": [0.5], "yes": True})


@pytest.mark.parametrize("text", ["null", "[1]", "{", "1", "[" * 100_000])
def test_a_header_that_is_no_json_object(tmp_path, monkeypatch, text):
    with monkeypatch.context() as m:
        m.setattr("dimlib.machine.tensors.json.dumps", lambda *_, **__: text)
        write_tensors({"a": torch.ones(1)}, tmp_path / "c", "training", {})
        with pytest.raises(ValueError, match="c has an entry 'training' that is no JSON object"):
            read_tensors(tmp_path / "c", "training")


def test_a_file_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    done, fsync, replace = [], os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda handle: (done.append("fsync"), fsync(handle)))
    monkeypatch.setattr(os, "replace", lambda *names: (done.append("replace"), replace(*names)))
    with replacing(tmp_path / "file") as unfinished:
        unfinished.write_text("x")
    assert done == ["fsync", "replace"]


def test_a_folder_is_refused_before_the_work(tmp_path):
    with pytest.raises(IsADirectoryError, match="is a folder: give the name of a file"), replacing(tmp_path):
        pytest.fail("the work has begun")


def test_a_second_process_is_refused(tmp_path):
    code = f"from dimlib.machine.tensors import locked\nwith locked({str(tmp_path / 'c')!r}): print('in')"
    command = [sys.executable, "-c", code]
    with locked(tmp_path / "c"):
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 1 and "c is in use by another process: wait for it" in done.stderr
    assert subprocess.run(command, capture_output=True, text=True).stdout == "in\n"

"""Files that are replaced in one step."""

import os
import stat

import pytest

from dimlib.machine.tensors import replacing


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

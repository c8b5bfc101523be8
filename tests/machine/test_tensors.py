"""Files that are replaced in one step, and whose damage is noticed."""

import os
import stat
import subprocess
import sys

import numpy as np
import pytest
import torch

from dimlib.machine.tensors import locked, read_checkpoint, read_tensors, replacing, write_checkpoint, write_tensors


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


RUN = {"steps": 3}


def checkpoint(path, step):
    net = torch.nn.Linear(2, 1)
    torch.nn.init.constant_(net.weight, step)
    write_checkpoint(path, RUN, [(float(i),) for i in range(step)], {"net": net}, [])


def test_a_damaged_checkpoint_is_replaced_by_the_one_before_it(tmp_path):
    path, net = tmp_path / "c", torch.nn.Linear(2, 1)
    checkpoint(path, 1)
    checkpoint(path, 2)
    damaged = bytearray(path.read_bytes())
    damaged[-1] ^= 1
    path.write_bytes(damaged)
    with pytest.warns(UserWarning, match="c is damaged.* goes on from the checkpoint before it"):
        assert len(read_checkpoint(path, RUN, {"net": net}, [])) == 1
    assert (net.weight == 1).all()
    assert (tmp_path / "c.damaged").read_bytes() == damaged and not path.exists()
    checkpoint(path, 3)                                                    # until it is there, the good one stays
    assert len(read_tensors(tmp_path / "c.previous", "training")[0]["history"]) == 1


def test_where_no_checkpoint_is_whole_the_error_says_what_to_do(tmp_path):
    path = tmp_path / "c"
    checkpoint(path, 1)
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(ValueError, match="c has no 'training' entry .*: delete it to train from the start"):
        read_checkpoint(path, RUN, {"net": torch.nn.Linear(2, 1)}, [])


def test_where_both_checkpoints_are_damaged_both_are_named(tmp_path):
    for name in ("c", "c.previous"):
        (tmp_path / name).write_text("nothing")
    with pytest.raises(ValueError, match="c has no .*; .*c.previous has no .*: delete both to train from the start"):
        read_checkpoint(tmp_path / "c", RUN, {}, [])


def trained(path, **more):
    """A checkpoint of a network with an optimiser, after one step."""
    net = torch.nn.Linear(2, 1)
    adam = torch.optim.Adam(net.parameters())
    net(torch.ones(1, 2)).sum().backward()
    adam.step()
    write_checkpoint(path, RUN | more, [(0.0,)], {"net": net}, [adam])
    return net, adam


@pytest.mark.parametrize("missing", ["history", "net.weight", "optimizer0.0", "optimizer0.1", "optimizer0"])
def test_a_missing_part_of_a_checkpoint_is_named(tmp_path, missing):
    net, adam = trained(tmp_path / "c")
    tensors, header = read_tensors(tmp_path / "c", "training")
    left = {name: tensor for name, tensor in tensors.items() if not name.startswith(missing)}
    assert 0 < len(left) < len(tensors)
    write_tensors(left, tmp_path / "c", "training", header)
    named = missing.removeprefix("net.").split(".")[0]
    with pytest.raises(ValueError, match=f"(?s)c lacks a part of its run.*{named}.*: delete it"):
        read_checkpoint(tmp_path / "c", RUN, {"net": net}, [adam])


def test_a_checkpoint_of_a_newer_version_says_what_differs(tmp_path):
    net, adam = trained(tmp_path / "c", schedule="new")
    with pytest.raises(ValueError, match="c belongs to another run, with other schedule: delete it"):
        read_checkpoint(tmp_path / "c", RUN, {"net": net}, [adam])


def test_a_parameter_that_is_not_used_needs_no_state(tmp_path):
    net = torch.nn.Sequential(torch.nn.Linear(2, 1), torch.nn.Linear(2, 1))
    adam = torch.optim.Adam(net.parameters())
    net[0](torch.ones(1, 2)).sum().backward()
    adam.step()
    write_checkpoint(tmp_path / "c", RUN, [(0.0,)], {"net": net}, [adam])
    assert len(read_checkpoint(tmp_path / "c", RUN, {"net": net}, [adam])) == 1


def test_more_steps_than_the_run_has_are_refused(tmp_path):
    net = torch.nn.Linear(2, 1)
    checkpoint(tmp_path / "c", 4)
    with pytest.raises(ValueError, match="c has 4 steps of a run of 3: delete it, and c.previous, to train"):
        read_checkpoint(tmp_path / "c", RUN, {"net": net}, [])


@pytest.mark.parametrize("text", ["null", "[1]", "{", "1"])
def test_a_header_that_is_no_json_object(tmp_path, monkeypatch, text):
    with monkeypatch.context() as m:
        m.setattr("dimlib.machine.tensors.json.dumps", lambda value: text)
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


def test_a_process_that_is_killed_between_two_files_loses_nothing(tmp_path):
    path, net = tmp_path / "c", torch.nn.Linear(2, 1)
    checkpoint(path, 1)
    path.rename(tmp_path / "c.previous")
    with pytest.warns(UserWarning, match="goes on from the checkpoint before it"):
        assert len(read_checkpoint(path, RUN, {"net": net}, [])) == 1


def test_a_second_process_is_refused(tmp_path):
    code = f"from dimlib.machine.tensors import locked\nwith locked({str(tmp_path / 'c')!r}): print('in')"
    command = [sys.executable, "-c", code]
    with locked(tmp_path / "c"):
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 1 and "c is in use by another process: wait for it" in done.stderr
    assert subprocess.run(command, capture_output=True, text=True).stdout == "in\n"

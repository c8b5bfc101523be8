"""Checkpoints: what is damaged or belongs to another run is noticed, and the one before it is read."""

import os
import stat

import pytest
import safetensors.torch
import torch

from dimlib.machine.checkpoints import read_checkpoint, write_checkpoint
from dimlib.machine.tensors import locked, read_tensors, write_tensors

RUN = {"steps": 3}


def checkpoint(path, step):
    net = torch.nn.Linear(2, 1)
    torch.nn.init.constant_(net.weight, step)
    write_checkpoint(path, RUN, [(float(i),) for i in range(step)], {"net": net}, [])


@pytest.mark.skipif(os.name != "posix", reason="permissions are those of POSIX")
def test_a_private_file_stays_private(tmp_path):
    path = tmp_path / "c"
    for step in (1, 2, 3):
        checkpoint(path, step)
        if step == 1:
            path.chmod(0o600)
    assert [stat.S_IMODE(p.stat().st_mode) for p in sorted(tmp_path.iterdir())] == [0o600, 0o600]
    path.unlink()                                                          # as after damage: one file is left
    checkpoint(path, 3)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_full_disk_is_named_with_the_file_and_leaves_the_checkpoints(tmp_path, monkeypatch):
    def full(*_):
        raise safetensors.SafetensorError("I/O error: No space left on device")

    path, net = tmp_path / "c", torch.nn.Linear(2, 1)
    checkpoint(path, 1)
    with monkeypatch.context() as m, pytest.raises(OSError, match="/c cannot be written: .*No space.*make room"):
        m.setattr(safetensors.torch, "save_file", full)
        checkpoint(path, 2)
    assert len(read_checkpoint(path, RUN, {"net": net}, [], 1)) == 1 and [p.name for p in tmp_path.iterdir()] == ["c"]


def test_a_damaged_checkpoint_is_replaced_by_the_one_before_it(tmp_path):
    path, net = tmp_path / "c", torch.nn.Linear(2, 1)
    checkpoint(path, 1)
    checkpoint(path, 2)
    damaged = bytearray(path.read_bytes())
    damaged[-1] ^= 1
    path.write_bytes(damaged)
    with pytest.warns(UserWarning, match="c is damaged.* goes on from the checkpoint before it"):
        assert len(read_checkpoint(path, RUN, {"net": net}, [], 1)) == 1
    assert (net.weight == 1).all()
    assert (tmp_path / "c.damaged").read_bytes() == damaged and not path.exists()
    checkpoint(path, 3)                                                    # until it is there, the good one stays
    assert len(read_tensors(tmp_path / "c.previous", "training")[0]["history"]) == 1


def test_where_no_checkpoint_is_whole_the_error_says_what_to_do(tmp_path):
    path = tmp_path / "c"
    checkpoint(path, 1)
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(ValueError, match="c has no 'training' .*; .*c.previous is missing: delete c and c.previous"):
        read_checkpoint(path, RUN, {"net": torch.nn.Linear(2, 1)}, [], 1)


def test_where_both_checkpoints_are_damaged_both_are_named(tmp_path):
    for name in ("c", "c.previous"):
        (tmp_path / name).write_text("nothing")
    with pytest.raises(ValueError, match="c has no .*; .*c.previous has no .*: delete c and c.previous to train"):
        read_checkpoint(tmp_path / "c", RUN, {}, [], 1)


def test_a_run_that_is_no_json_is_refused_before_it_begins_and_changes_no_file(tmp_path):
    path, net = tmp_path / "c", torch.nn.Linear(2, 1)
    run = RUN | {"seed": torch.tensor(1)}
    with pytest.raises(TypeError, match=r"tensor\(1\) cannot be in the header of a file: use numbers"):
        read_checkpoint(path, run, {"net": net}, [], 1)
    checkpoint(path, 1)
    before = path.read_bytes()
    with pytest.raises(TypeError, match=r"tensor\(1\) cannot be in the header of a file: use numbers"):
        write_checkpoint(path, run, [(0.0,)], {"net": net}, [])
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["c"]


@pytest.mark.parametrize("folder", ["c", "c.previous"])
def test_a_folder_is_no_damaged_checkpoint(tmp_path, folder):
    if folder != "c":
        (tmp_path / "c").write_text("nothing")
    (tmp_path / folder).mkdir()
    with pytest.raises(IsADirectoryError, match=f"{folder} is a folder: give the name of a file"):
        read_checkpoint(tmp_path / "c", RUN, {}, [], 1)


def test_a_checkpoint_that_cannot_be_read_is_not_damaged(tmp_path, monkeypatch):
    """A disk may be back in a minute: the training does not go on from an older checkpoint."""
    def broken(*_):
        raise OSError("Input/output error (os error 5)")

    path, net = tmp_path / "c", torch.nn.Linear(2, 1)
    checkpoint(path, 1)
    checkpoint(path, 2)
    with monkeypatch.context() as m, pytest.raises(OSError, match="/c cannot be read: Input/output error"):
        m.setattr(safetensors, "safe_open", broken)
        read_checkpoint(path, RUN, {"net": net}, [], 1)
    assert len(read_checkpoint(path, RUN, {"net": net}, [], 1)) == 2
    assert {p.name for p in tmp_path.iterdir()} == {"c", "c.previous"}


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may read every file")
def test_a_checkpoint_that_may_not_be_read_is_not_missing(tmp_path):
    path, net = tmp_path / "c", torch.nn.Linear(2, 1)
    checkpoint(path, 1)
    checkpoint(path, 2)
    path.chmod(0)
    with pytest.raises(PermissionError, match="/c'"):
        read_checkpoint(path, RUN, {"net": net}, [], 1)
    path.chmod(0o600)
    assert len(read_checkpoint(path, RUN, {"net": net}, [], 1)) == 2


@pytest.mark.skipif(os.name != "posix", reason="links are those of POSIX")
def test_the_link_of_a_checkpoint_stays_a_link(tmp_path):
    (tmp_path / "large").mkdir()
    link, file = tmp_path / "c", tmp_path / "large" / "file"
    link.symlink_to(file)
    for step in (1, 2):
        checkpoint(link, step)
    net = torch.nn.Linear(2, 1)
    assert link.is_symlink() and {p.name for p in file.parent.iterdir()} == {"file", "file.previous"}
    assert len(read_checkpoint(link, RUN, {"net": net}, [], 1)) == 2
    with locked(link), pytest.raises(RuntimeError, match="file is in use by another process"), locked(file):
        pytest.fail("two processes train with one file")
    file.write_text("nothing")
    with pytest.warns(UserWarning, match="goes on from the checkpoint before it"):
        assert len(read_checkpoint(link, RUN, {"net": net}, [], 1)) == 1
    assert link.is_symlink() and (tmp_path / "large" / "file.damaged").exists()


def trained(path, **more):
    """A checkpoint of a network with an optimiser, after one step."""
    net = torch.nn.Linear(2, 1)
    adam = torch.optim.Adam(net.parameters())
    net(torch.ones(1, 2)).sum().backward()
    adam.step()
    write_checkpoint(path, RUN | more, [(0.0,)], {"net": net}, [adam])
    return net, adam


@pytest.mark.parametrize("missing", [
    "history", "net.weight", "optimizer0.0", "optimizer0.1", "optimizer0.0.step", "optimizer0.1.exp_avg_sq",
    "optimizer0"])
def test_a_missing_part_of_a_checkpoint_is_named(tmp_path, missing):
    net, adam = trained(tmp_path / "c")
    tensors, header = read_tensors(tmp_path / "c", "training")
    left = {name: tensor for name, tensor in tensors.items() if not name.startswith(missing)}
    assert 0 < len(left) < len(tensors)
    write_tensors(left, tmp_path / "c", "training", header)
    named = missing.removeprefix("net.").split(".")[0]
    with pytest.raises(ValueError, match=f"(?s)c lacks a part of its run.*{named}.*: delete c and c.previous"):
        read_checkpoint(tmp_path / "c", RUN, {"net": net}, [adam], 1)


def test_a_checkpoint_of_a_newer_version_says_what_differs(tmp_path):
    net, adam = trained(tmp_path / "c", schedule="new")
    with pytest.raises(ValueError, match="c belongs to another run, with other schedule: delete c and c.previous"):
        read_checkpoint(tmp_path / "c", RUN, {"net": net}, [adam], 1)


@pytest.mark.parametrize("name, other", [
    ("history", torch.zeros(1, 2)), ("history", torch.tensor(0.0)), ("optimizer0.1.exp_avg", torch.zeros(2)),
    ("optimizer0", torch.tensor([0, 7])), ("net.weight", torch.zeros(2, 1)), ("net.more", torch.zeros(1))])
def test_of_a_checkpoint_with_a_part_that_does_not_fit_the_one_before_it_is_read(tmp_path, name, other):
    net, adam = trained(tmp_path / "c.previous")
    tensors, header = read_tensors(tmp_path / "c.previous", "training")
    write_tensors(tensors | {name: other}, tmp_path / "c", "training", header)
    with pytest.warns(UserWarning, match=f"has one that does not fit .{name}.*goes on from the checkpoint before it"):
        assert read_checkpoint(tmp_path / "c", RUN, {"net": net}, [adam], 1) == [[0.0]]
    assert {p.name for p in tmp_path.iterdir()} == {"c.damaged", "c.previous"}


def test_a_parameter_that_is_not_used_needs_no_state(tmp_path):
    net = torch.nn.Sequential(torch.nn.Linear(2, 1), torch.nn.Linear(2, 1))
    adam = torch.optim.Adam(net.parameters())
    net[0](torch.ones(1, 2)).sum().backward()
    adam.step()
    write_checkpoint(tmp_path / "c", RUN, [(0.0,)], {"net": net}, [adam])
    assert len(read_checkpoint(tmp_path / "c", RUN, {"net": net}, [adam], 1)) == 1


def test_more_steps_than_the_run_has_are_refused(tmp_path):
    net = torch.nn.Linear(2, 1)
    checkpoint(tmp_path / "c", 4)
    with pytest.raises(ValueError, match="c has 4 steps of a run of 3; .*: delete c and c.previous to train"):
        read_checkpoint(tmp_path / "c", RUN, {"net": net}, [], 1)


def test_a_process_that_is_killed_between_two_files_loses_nothing(tmp_path):
    path, net = tmp_path / "c", torch.nn.Linear(2, 1)
    checkpoint(path, 1)
    path.rename(tmp_path / "c.previous")
    with pytest.warns(UserWarning, match="goes on from the checkpoint before it"):
        assert len(read_checkpoint(path, RUN, {"net": net}, [], 1)) == 1

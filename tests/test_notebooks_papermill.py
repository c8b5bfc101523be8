"""The notebooks with other parameters than those they are stored with: what a reader does first."""

import json
import os
import runpy
import sys
from pathlib import Path

import pytest

from dimlib.book.records import COLUMNS
from dimlib.data import packages
from dimlib.machine.tensors import locked

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "workflow"))
from run_notebook import main, parse  # noqa: E402

pytestmark = pytest.mark.slow

OTHER = {
    "01_manifolds_and_noise": ["dim=5", "ambient_dim=50", "seed=3"],
    "02_the_theorem": ["dim=5", "ambient_dim=30", "seed=4"],
    "03_from_directions_to_a_number": ["seed=1"],
    "04_dimension_has_a_scale": ["seed=1"],
    "05_learning_the_score": ["hard_steps=20", "dim=3", "ambient_dim=20", "n_data=500", "steps=60", "width=32"],
    "06_sampling": ["dim=3", "ambient_dim=20", "n_samples=300", "steps=60", "width=32"],
    "07_spheres": ["dim=3", "ambient_dim=20", "n_data=500", "steps=60", "n_points=5", "seed=2"],
    "08_union": ["n_data=600", "steps=60", "n_points=20", "seed=2"],
    "09_curvature": ["radius=0.5", "dim=3", "ambient_dim=20", "n_data=500", "steps=60", "n_points=5"],
    "10_spaghetti_line": ["ambient_dim=20", "n_data=500", "steps=60", "n_points=10", "seed=2"],
    "11_a_curved_surface": ["ambient_dim=20", "n_data=500", "steps=60", "n_points=12", "seed=2"],
    "12_nonuniform_sphere": ["alpha=0.5", "n_data=500", "steps=60", "n_points=6", "n_perfect=3", "many=400"],
    "13_robustness": ["data_noise=0", "dim=3", "ambient_dim=20", "n_data=500", "steps=60", "n_points=10"],
    "14_sample_complexity": ["n_data=20", "compare=[]", "dim=2", "ambient_dim=5", "steps=60", "n_points=5"],
    "15_squares": ["n_squares=4", "size=16", "n_data=500", "steps=60", "n_points=3", "compare_steps=10", "seed=2"],
    "16_blobs": ["n_blobs=3", "size=8", "n_data=500", "steps=60", "n_points=3", "compare_steps=10", "seed=2",
                 "levels=0.05,0.1", "multipliers=1,2"],
    "17_digits": ["steps=60", "n_points=2", "seed=1", "network=MLP", "levels=0.02,0.08"],
    "18_the_autoencoder_check": ["n_data=500", "n_points=100", "steps=20", "seed=1"],
    "19_relatives": ["dim=3", "ambient_dim=20", "n_data=500", "steps=60", "n_points=5", "seed=2"],
    "20_table_2": ["data=squares 10", "n_data=300", "methods=['TwoNN', 'PCA']", "seed=1"],
    "21_hard_cases": ["manifold=M2_Affine_3to5", "n_data=300", "max_steps=60", "methods=['TwoNN', 'PCA']", "seed=1"],
    "22_your_own_data": ["max_steps=20", "batch_size=100", "n_repeats=1", "seed=1"],
    "23_your_own_diffusion_model": ["n_squares=3", "size=10", "n_data=500", "steps=40", "more_steps=20", "channels=16",
                                    "n_points=3", "schedule=linear", "seed=2"],
    "24_galaxies": ["n_galaxies=4", "levels=0.3,0.5", "seed=1"],
    "25_faces": ["k=3", "n_data=300", "max_steps=30", "n_points=2", "levels=0.05,0.1", "methods=['PCA']", "seed=1"],
    "26_how_sure": ["manifold=spiral_in_13", "n_data=100", "max_steps=3", "steps=3", "variants=None", "seed=1"],
    "27_relatives_tables": ["data=mixture", "ambient_dim=30", "dims=2,4", "n_data=300", "max_steps=30", "n_points=5",
                            "n_neighbors=20", "seed=1"],
    "28_two_uses": ["n_data=300", "few=20", "steps=20", "n_images=10", "levels=0.05,0.1", "seed=1"],
}
LONG = {"04_dimension_has_a_scale", "06_sampling", "08_union", "09_curvature", "11_a_curved_surface", "15_squares",
        "17_digits", "22_your_own_data", "23_your_own_diffusion_model", "24_galaxies",
        "25_faces"}  # from 20 seconds to a minute each, also with few steps
DOWNLOADS = runpy.run_path(str(ROOT / "notebooks" / "conftest.py"))["DOWNLOADS"]  # one list of them


def test_every_notebook_is_run():
    assert set(OTHER) == {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")}


@pytest.mark.parametrize("name", OTHER)
def test_a_notebook_runs_with_other_parameters(name, tmp_path):
    if name in LONG and not os.environ.get("DIMLIB_LONG"):
        pytest.skip("takes long: make test-slow runs it")
    notebook = ROOT / "notebooks" / f"{name}.ipynb"
    if notebook.name in DOWNLOADS:
        try:
            packages.fetch(**DOWNLOADS[notebook.name])
        except ConnectionError as error:
            pytest.skip(str(error))
    writes = ["out_dir=" + str(tmp_path)] if "out_dir" in notebook.read_text() else []
    main(str(notebook), str(tmp_path / "run.ipynb"), *OTHER[name], *writes)
    assert "injected-parameters" in (tmp_path / "run.ipynb").read_text()
    rows = json.loads((tmp_path / "metrics.json").read_text())["rows"] if writes else []
    if writes and "variant" in rows[0]:  # a row for each of several recipes
        assert len(rows) == 20 and all(0 <= row["share_exact"] <= 1 and row["loss"] != 0 for row in rows)
    elif writes and "question" in rows[0]:  # a row for each question, score and noise level
        assert len(rows) == 30 and all(0 <= row["low"] <= row["auroc"] <= row["high"] <= 1 for row in rows)
    elif writes and "source" in rows[0]:  # a row for each readout of each denoiser
        exact = [row for row in rows if row["source"] == "exact denoiser"]
        assert len(rows) == 12 and {row["share_exact"] for row in exact if "SVD" in row["method"]} == {1}
    elif writes and "method" in rows[0]:  # a row for each of several methods
        assert [row["method"] for row in rows][-2:] == ["TwoNN", "PCA"] and rows[-1]["estimate"] in (3, 10)
    elif writes:
        assert {row["rule"] for row in rows} - {"each level"} == {"recommended", "gap", "ratio", "cut", "published"}
        assert all(list(row)[: len(COLUMNS)] == list(COLUMNS) for row in rows)
        assert all(row["k"] is None or 0 <= row["share_exact"] <= 1 for row in rows)


def test_a_misspelt_parameter_is_refused():
    with pytest.raises(ValueError, match="no parameter 'step'; it has .*steps"):
        parse(["step=10"], ROOT / "notebooks" / "07_spheres.ipynb")


def test_a_parameter_without_a_value_is_refused():
    with pytest.raises(ValueError, match="'seed' has no value: write seed=value"):
        parse(["seed"], ROOT / "notebooks" / "07_spheres.ipynb")


@pytest.mark.parametrize("text", ["[" * 5000, "(" * 100_000, "{x}", "a/b"])
def test_a_value_that_is_no_literal_is_text(text):
    assert parse([f"device={text}"], ROOT / "notebooks" / "07_spheres.ipynb") == {"device": text}


@pytest.mark.parametrize("name", ["2024", "2024_11", "1e3", "None", "[1]"])
def test_a_folder_whose_name_is_a_python_literal(name):
    (folder,) = parse([f"out_dir={name}"], ROOT / "notebooks" / "07_spheres.ipynb").values()
    assert (ROOT / "notebooks" / folder).resolve() == Path(name).resolve()


def test_a_link_to_the_notebooks_moves_no_output(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "notebooks").symlink_to(ROOT / "notebooks")
    (folder,) = parse(["out_dir=here"], tmp_path / "deep" / "notebooks" / "07_spheres.ipynb").values()
    assert (ROOT / "notebooks" / folder).resolve() == Path("here").resolve()


def test_an_output_that_cannot_be_written_is_noticed_before_the_run(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError):
        main(str(ROOT / "notebooks" / "07_spheres.ipynb"), str(tmp_path / "file" / "run.ipynb"))
    with pytest.raises(IsADirectoryError):
        main(str(ROOT / "notebooks" / "07_spheres.ipynb"), str(tmp_path))
    with pytest.raises(OSError):
        main(str(ROOT / "notebooks" / "07_spheres.ipynb"), str(tmp_path / "run.ipynb"), f"out_dir={tmp_path}/file/in")


def test_a_second_run_with_the_same_folder_is_refused(tmp_path):
    folder = f"out_dir={tmp_path}"
    with locked(tmp_path / "out_dir"), pytest.raises(RuntimeError, match="out_dir is in use by another process"):
        main(str(ROOT / "notebooks" / "07_spheres.ipynb"), str(tmp_path / "run.ipynb"), folder)


def test_numbers_between_commas_are_a_list():
    """A tuple would reach the notebook as text."""
    given = parse(["levels=0.02,0.04", "network=U-Net", "steps=10"], ROOT / "notebooks" / "16_blobs.ipynb")
    assert given == {"levels": [0.02, 0.04], "network": "U-Net", "steps": 10}

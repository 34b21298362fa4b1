"""tools/surrogate.py: the effects that it fits, and what the command writes."""

import json
import multiprocessing

import numpy as np
import pytest
from helpers import REAL_DATA, files, needs_real_data
from scipy.stats import kendalltau

from common.files import sha256
from dataset import load_train
from tasks import TRAIN_FILE
from tools import surrogate


@needs_real_data
def test_the_committed_effects_are_those_of_the_competitions_file(effects):
    assert (effects["about"], effects["data"]) == (surrogate.ABOUT, sha256(REAL_DATA))
    for name, fitted in surrogate.fit(load_train(REAL_DATA)[1]).items():
        assert effects["tasks"][name].keys() == fitted.keys()
        for key, values in fitted.items():
            np.testing.assert_allclose(effects["tasks"][name][key], values, rtol=0, atol=2e-4)


def test_effects_are_found_again_in_ranks_that_were_made_from_them(effects, generated, tmp_path):
    (tmp_path / TRAIN_FILE).write_bytes(generated[TRAIN_FILE])
    for name, fitted in surrogate.fit(load_train(tmp_path / TRAIN_FILE)[1]).items():
        made = effects["tasks"][name]
        for key in ("depth", "heads", "mlp_ratio"):
            assert kendalltau(fitted[key], made[key]).statistic > 0.3
        for key in ("residual", "ktau"):
            assert fitted[key] == pytest.approx(made[key], abs=0.1)


def test_a_fit_replaces_the_effects_and_the_files_follow(command, home, data_folder):
    answer, folder = command("tools/surrogate.py", "--fit", "data"), home / "data" / "surrogate"
    written, tasks = (
        json.loads((folder / "effects.json").read_text()),
        surrogate.fit(load_train(f"data/{TRAIN_FILE}")[1]),
    )
    assert (answer.returncode, written["data"], written["tasks"]) == (0, sha256(f"data/{TRAIN_FILE}"), tasks)
    rows = [f"{name} tau {task['ktau']:.4f} residual {task['residual']:.4f}" for name, task in tasks.items()]
    assert [" ".join(line.split()) for line in answer.stdout.splitlines()[:8]] == rows
    other = multiprocessing.get_context("fork").Process(target=command, args=("tools/surrogate.py",))
    other.start()  # two at once make the same whole files
    assert command("tools/surrogate.py").returncode == 0
    other.join()
    assert {name: sha256(folder / name) for name in written["sha256"]} == written["sha256"]
    assert len(files(folder)) == 4

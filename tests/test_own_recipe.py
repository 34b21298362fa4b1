"""A user's own recipe: the README's file and its line in the table, and every command takes it."""

import json
import re

import numpy as np
import torch
from helpers import ROOT, one_hot

from tasks import TEST_FILE, TRAIN_FILE

README = (ROOT / "README.md").read_text()
(CODE,) = re.findall(r"^```python\n(import torch\n.*?)^```$", README, re.MULTILINE | re.DOTALL)
(LINE,) = re.findall(r'`("neighbours": .*?,)`', README)


def test_the_readmes_recipe_goes_through_every_command(project, data_folder, script, tmp_path):
    (project / "recipes" / "neighbours.py").write_text(CODE)
    table = project / "recipes" / "__init__.py"
    table.write_text(table.read_text().replace("RECIPES = {\n", f"RECIPES = {{\n    {LINE}\n"))
    own = ("--recipe", "neighbours")

    def run(name, *flags):
        answer = script(name, *flags, "--data_path", "data", "--tasks", "sop", "veri", root=project)
        assert answer.returncode == 0, answer.stderr
        return answer.stdout

    run("main.py", *own)
    run("test.py", *own, "--save_name", "s")
    recipe, submission = {}, json.loads((tmp_path / "Track2_submitA_s.json").read_text())
    exec(CODE, recipe)
    recipe = recipe["Recipe"]("neighbours", "neighbours")
    known, asked = (json.loads((data_folder / name).read_text()).values() for name in (TRAIN_FILE, TEST_FILE))
    x, y = (torch.tensor(np.array([one_hot(entry["arch"]) for entry in entries])) for entries in (known, asked))
    for name in ("sop_rank", "veri_rank"):
        scores = recipe.model(recipe.fit(None, x, [entry[name] for entry in known]))(y)
        assert [entry[name] for entry in submission.values()] == [sum(scores < score) for score in scores]

    large, small = "l" + "111" * 12, "j" + "331" * 10 + "000000"
    ranked = json.loads(run("tools/rank.py", large, small, *own, "--json"))
    for entry, low, high in zip(ranked, (0.9, 0), (1, 0.1), strict=True):
        assert all(low <= task["beats"] <= high for task in entry["tasks"].values())
    assert "nothing is proven" in run("tools/search.py", *own, "--top", 3, "--json", "best.json")
    best = json.loads((tmp_path / "best.json").read_text())["architectures"]
    assert len(best) == 3 and all(entry["arch"].count("1") > entry["arch"].count("3") for entry in best)
    table = run("tools/crossval.py", "--recipes", "neighbours", "ridge")
    taus = re.search(r"\*\*mean\*\* \| (\d\.\d+) \(.*?\) \| (\d\.\d+)", table)
    assert 0.3 < float(taus[1]) < float(taus[2]) < 1

from __future__ import annotations

import pytest
import torch

# A network of one class and the least that a checkout of the published code looks like.
CHECKOUT = """
import torch
from timm.data import IMAGENET_DEFAULT_MEAN
from timm.models.layers import DropPath, trunc_normal_
from timm.models.layers.helpers import to_2tuple
from timm.models.registry import register_model

print("the published code prints while it is imported")

@register_model
def tiny():
    return torch.nn.Sequential(DropPath(0.1), torch.nn.Linear(*to_2tuple(3)))
"""


@pytest.mark.slow
def test_ours_alone(run):
    page, printed = run(
        "published", "--models", "coc_tiny", "--batch-size", "1", "--repeats", "1", "--budget", "0",
        "--no-memory",
    )  # fmt: skip
    assert page in printed
    for what in ("inference", "training"):
        (row,) = [line for line in page.splitlines() if line.startswith(f"| coc_tiny | {what} |")]
        ours, other, ratio, share = (cell.strip() for cell in row.split("|")[3:7])
        assert float(ours) > 0 and float(share) > 0 and other == ratio == "–"


def test_a_checkout_is_loaded_with_stand_ins_for_timm(script, tmp_path, monkeypatch, capsys):
    import sys

    published = script("published")
    monkeypatch.setattr(published.importlib.util, "find_spec", lambda name: object())
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "context_cluster.py").write_text(CHECKOUT)
    before = {name: module for name, module in sys.modules.items() if name.startswith("timm")}
    module = published.published_code(tmp_path)
    assert module.tiny()(torch.zeros(1, 3)).shape == (1, 3)
    assert {n: m for n, m in sys.modules.items() if n.startswith("timm")} == before
    assert capsys.readouterr().out == ""


def test_no_checkout_and_no_einops(script, tmp_path, monkeypatch):
    published = script("published")
    with pytest.raises(SystemExit, match="takes a checkout of the published code"):
        published.published_code(tmp_path)
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "context_cluster.py").write_text(CHECKOUT)
    monkeypatch.setattr(published.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit, match="pip install einops"):
        published.published_code(tmp_path)


def test_weights_with_which_every_branch_counts(script):
    published = script("published")
    torch.manual_seed(0)
    model = published.create_model("coc_micro", num_classes=3)
    x = torch.rand(1, 3, 28, 28)
    published.randomise(model)
    before = model.eval()(x)
    with torch.no_grad():
        model.stages[0][0].cluster.proj.weight.mul_(1.5)
    assert (model(x) - before).abs().max() > 1e-4


def test_memory_is_of_the_cpu_alone(script, monkeypatch):
    import argparse
    from contextlib import nullcontext
    from pathlib import Path

    published = script("published")
    asked = []
    monkeypatch.setattr(published, "in_child", lambda *arguments: asked.append(arguments) or 2**20)
    monkeypatch.setattr(published, "precision", lambda *arguments: nullcontext())
    args = argparse.Namespace(
        batch_size=1, device="meta", dtype="float32", memory=True, repeats=1, budget=0.0,
        published=Path("checkout"),
    )  # fmt: skip
    layers = [torch.nn.Flatten(), torch.nn.Linear(3 * 224 * 224, 2, device="meta")]
    models = {"ours": torch.nn.Sequential(*layers), "published": torch.nn.Sequential(*layers)}
    rows = published.compare(args, "tiny", models, torch.device("meta"))
    assert [row[-3:] for row in rows] == [["–"] * 3] * 2 and not asked
    assert "Memory was not measured" in published.explanation(args)[1]
    args.device = "cpu"
    models = {key: model.to_empty(device="cpu") for key, model in models.items()}
    rows = published.compare(args, "tiny", models, torch.device("cpu"))
    assert rows[1][-3] == "1.00 MiB" and len(asked) == 2
    assert "memory that a training step adds" in published.explanation(args)[1]


def test_the_page_says_whose_operations_count(script):
    import argparse
    from pathlib import Path

    published = script("published")
    args = argparse.Namespace(
        batch_size=1, device="cpu", dtype="float32", memory=False, published=None
    )
    assert published.explanation(args)[-1].endswith("counts are our own network's.")
    args.published = Path("checkout")
    assert published.explanation(args)[-1].endswith(
        "counts are the published code's, for ours, too."
    )

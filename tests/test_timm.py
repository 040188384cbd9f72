from __future__ import annotations

import sys

import pytest
import torch

timm = pytest.importorskip("timm")

import pointcluster.timm  # noqa: E402, F401
from pointcluster.models import create_model, list_models, load_model, save_model  # noqa: E402
from pointcluster.models.coc import SIZES  # noqa: E402


@pytest.fixture
def images():
    return torch.randn(2, 3, 28, 28, generator=torch.Generator().manual_seed(0))


def test_every_network_is_registered():
    assert timm.list_models("coc_*") == sorted(SIZES) == list_models("coc_*")
    assert timm.list_models(module="coc") and not timm.list_models("coc_*", pretrained=True)


@pytest.mark.parametrize("name", ["coc_micro", "coc_small_feat5"])
def test_the_same_network_as_ours(name, images, tmp_path):
    torch.manual_seed(0)
    found = timm.create_model(name, num_classes=10, in_chans=3).eval()
    expected = create_model(name, num_classes=10).eval()
    expected.load_state_dict(found.state_dict())
    with torch.no_grad():
        assert torch.equal(found(images), expected(images))
        save_model(tmp_path / "net", found)
        assert torch.equal(load_model(tmp_path / "net", name=name)[0](images), expected(images))


def test_data_config():
    model = timm.create_model("coc_tiny", num_classes=0)
    config = timm.data.resolve_model_data_config(model)
    assert config["input_size"] == (3, 224, 224) and config["crop_pct"] == 0.9
    assert config["interpolation"] == "bicubic"
    assert config["mean"] == (0.485, 0.456, 0.406) and config["std"] == (0.229, 0.224, 0.225)
    assert model.default_cfg is model.pretrained_cfg
    timm.data.create_transform(**config, is_training=True)
    modules = dict(model.named_modules())
    assert modules[model.default_cfg["first_conv"]].in_features == 16 * 5


def test_features_only():
    model = timm.create_model(
        "coc_small",
        pretrained=False,
        num_classes=10,
        in_chans=3,
        drop_path_rate=0.1,
        features_only=True,
        out_indices=(0, 2),
    )
    assert model.feature_info.channels() == [64, 320]
    assert model.feature_info.reduction() == [4, 16]
    assert model.feature_info.module_name() == ["stages.0", "stages.2"]
    assert model.default_cfg["architecture"] == "coc_small"
    with torch.no_grad():
        maps = model.eval()(torch.randn(1, 3, 64, 48))
    assert [tuple(each.shape) for each in maps] == [(1, 64, 16, 12), (1, 320, 4, 3)]
    model = timm.create_model("coc_micro", features_only=True, out_indices=(4, 0)).eval()
    with torch.no_grad():
        maps = model(torch.randn(1, 3, 28, 28))
    assert [each.size(1) for each in maps] == model.feature_info.channels() == [128, 32]
    assert model.feature_info.reduction() == [8, 2]
    last = timm.create_model("coc_micro", features_only=True, out_indices=2)
    assert last.feature_info.channels() == [64, 128]


def test_one_contract(images):
    torch.manual_seed(0)
    model = timm.create_model("coc_micro", num_classes=7, drop_rate=0.1, global_pool="avg").eval()
    assert model.num_classes == 7 and model.get_classifier() is model.head
    with torch.no_grad():
        features = model.forward_features(images)
        assert torch.equal(model.forward_head(features), model(images))
        assert model.forward_head(features, pre_logits=True).shape == (2, model.head_hidden_size)
        end, maps = model.forward_intermediates(images)
        torch.testing.assert_close(end, features)
        assert [each.size(1) for each in maps] == [each["num_chs"] for each in model.feature_info]
        (first,) = model.forward_intermediates(
            images, indices=[0], stop_early=True, intermediates_only=True
        )
        assert torch.equal(first, maps[0])
        (normed,) = model.forward_intermediates(images, 1, norm=True, intermediates_only=True)
        torch.testing.assert_close(normed, features)
    with pytest.raises(ValueError, match="NCHW"):
        model.forward_intermediates(images, output_fmt="NLC")
    model.reset_classifier(0)
    assert model(images).shape == (2, 128)
    model.reset_classifier(5, "avg")
    assert model(images).shape == (2, 5)


def test_gradient_checkpointing_changes_no_gradient(images):
    gradients = []
    for enable in (False, True):
        torch.manual_seed(0)
        model = timm.create_model("coc_micro", num_classes=4, drop_path_rate=0.5, layer_scale=0.5)
        model.set_grad_checkpointing(enable)
        torch.manual_seed(1)
        model.train()(images).square().sum().backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b)


def test_layers_for_learning_rates():
    from timm.optim import create_optimizer_v2, param_groups_layer_decay

    model = timm.create_model("coc_micro", num_classes=4)
    groups = param_groups_layer_decay(model, layer_decay=0.5)
    # The first reducer, four blocks, the last norm, and the classifier.
    assert len({group["lr_scale"] for group in groups}) >= 6
    stem = {id(parameter) for parameter in model.reducers[0].parameters()}
    lowest = min(group["lr_scale"] for group in groups)
    for group in groups:
        inside = {id(parameter) for parameter in group["params"]} & stem
        assert not inside or group["lr_scale"] == lowest
    count = sum(len(group["params"]) for group in groups)
    assert count == len(list(model.parameters()))
    create_optimizer_v2(model, opt="adamw", lr=1e-3, weight_decay=0.05)


def test_a_step_as_timm_trains(images):
    from timm.data import Mixup
    from timm.loss import SoftTargetCrossEntropy
    from timm.optim import create_optimizer_v2
    from timm.scheduler import create_scheduler_v2
    from timm.utils import ModelEmaV3

    torch.manual_seed(0)
    model = timm.create_model("coc_micro", num_classes=4, drop_path_rate=0.1, layer_scale=0.5)
    average = ModelEmaV3(model, decay=0.5)
    optimizer = create_optimizer_v2(model, opt="adamw", lr=1e-2, weight_decay=0.05)
    scheduler, _ = create_scheduler_v2(optimizer, num_epochs=3)
    mixup = Mixup(mixup_alpha=0.8, cutmix_alpha=1.0, num_classes=4)
    losses = []
    for epoch in range(8):
        mixed, target = mixup(images.clone(), torch.tensor([0, 3]))
        loss = SoftTargetCrossEntropy()(model(mixed), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        average.update(model)
        scheduler.step(epoch)
        losses.append(loss.item())
    assert all(loss < 10 for loss in losses)
    assert not torch.equal(average.module.head.weight, model.head.weight)


def test_a_checkpoint_of_ours_as_timm_loads_it(images, tmp_path):
    torch.manual_seed(0)
    ours = create_model("coc_micro", num_classes=4).eval()
    path = save_model(tmp_path / "net", ours)
    model = timm.create_model("coc_micro", num_classes=4, checkpoint_path=str(path)).eval()
    with torch.no_grad():
        assert torch.equal(model(images), ours(images))
    model = timm.create_model("coc_micro", num_classes=4)
    timm.models.load_checkpoint(model, str(path), use_ema=False)
    assert torch.equal(model.head.weight, ours.head.weight)
    overlay = {"file": str(path), "num_classes": 4}
    other = timm.create_model("coc_micro", True, num_classes=9, pretrained_cfg_overlay=overlay)
    assert other.head.out_features == 9
    assert torch.equal(other.norm.weight, ours.norm.weight)


def test_what_does_not_fit():
    with pytest.raises(RuntimeError, match=r"no weights of coc_tiny are hosted.*load_published"):
        timm.create_model("coc_tiny", pretrained=True)
    with pytest.raises(ValueError, match="averaged"):
        timm.create_model("coc_micro", global_pool="max")
    with pytest.raises(TypeError, match="img_sice"):
        timm.create_model("coc_micro", img_sice=3)
    with pytest.raises(IndexError, match="choose 0 to 4"):
        timm.create_model("coc_micro", features_only=True, out_indices=(5,))
    with pytest.raises(ValueError, match="each once"):
        timm.create_model("coc_micro", features_only=True, out_indices=(1, -4))


def test_without_timm(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm.data", None)
    monkeypatch.delitem(sys.modules, "pointcluster.timm.coc")
    with pytest.raises(ImportError, match=r"pip install 'pointcluster\[image\]'"):
        import pointcluster.timm.coc  # noqa: F401


def test_runs_programs_of_timm(tmp_path):
    import subprocess
    from pathlib import Path

    (tmp_path / "beside.py").write_text("word = 'beside'")
    (tmp_path / "program.py").write_text(
        "import sys, timm, beside\n"
        "assert __name__ == '__main__'\n"
        "print(sys.argv, beside.word, timm.is_model('coc_small'))\n"
    )

    def run(*arguments):
        command = [sys.executable, "-m", "pointcluster.timm", *arguments]
        root = Path(__file__).resolve().parents[1]
        return subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=300)

    program = str(tmp_path / "program.py")
    done = run(program, "--model", "x")
    assert done.stdout.strip() == f"{[program, '--model', 'x']} beside True", done.stderr
    done = run(str(tmp_path / "none.py"))
    assert done.returncode == 1 and done.stderr.startswith("usage: python -m pointcluster.timm")

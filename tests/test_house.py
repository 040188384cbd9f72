"""Laws of the house: arrows point down, importing is silent, every public name is documented."""

from __future__ import annotations

import ast
import configparser
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import pointcluster

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "pointcluster"
SOURCES = sorted(PACKAGE.rglob("*.py"))
PROGRAMS = sorted(
    path
    for folder in ("examples", "benchmarks", "datasets")
    for path in (ROOT / folder).rglob("*.py")
)

# What the modules of each package may import of this project, itself left out.
BELOW = {
    "ops": set(),
    "geometry": {"ops"},
    "transforms": {"geometry"},
    "datasets": {"geometry", "transforms"},
    "nn": {"geometry", "ops"},
    "models": {"geometry", "nn", "ops"},
    "timm": {"models"},
    "viz": {"geometry", "nn", "models", "datasets", "transforms"},
    "training": {"geometry", "nn", "models", "datasets", "transforms", "timm", "viz"},
    "app": {"geometry", "nn", "models", "datasets", "transforms", "training", "viz"},
    "segment.py": {"models", "datasets"},
    "predict.py": {"models", "datasets", "transforms"},
}
# The lower packages also keep to few libraries.
LIBRARIES = {
    "ops": {"torch", "torch_geometric", "numpy", "scipy", "numba", "torch_cluster", "triton"},
    "geometry": {"torch", "torch_geometric", "numpy"},
    "nn": {"torch", "torch_geometric", "numpy", "numba"},
}  # fmt: skip
# Heavy or optional: loaded by what needs them, when it runs.
ON_DEMAND = {
    "IPython", "PIL", "dash", "gradio", "h5py", "huggingface_hub", "imageio_ffmpeg",
    "laspy", "lazrs", "libusb_package", "lightning", "matplotlib", "numba", "onnx", "open3d",
    "plotly", "pypcd4", "pytorch_lightning", "skimage", "tensorboard", "timm", "torch_cluster",
    "torchmetrics", "torchvision", "trimesh",
}  # fmt: skip


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def imports(path: Path) -> Iterator[str]:
    """Dotted names of all modules that a file imports, wherever in the file it does so."""
    package = relative(path).split("/")[:-1]
    for node in ast.walk(parse(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*start, *([node.module] if node.module else [])])
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


def calls(path: Path) -> Iterator[ast.Call]:
    return (node for node in ast.walk(parse(path)) if isinstance(node, ast.Call))


def python(code: str, cwd: Path) -> subprocess.CompletedProcess:
    """Run code in a fresh interpreter, elsewhere; a warning is an error, but for PyG's own."""
    ignored = [
        "ignore:`torch.jit.script` is deprecated",
        "ignore:'torch-cluster' is no longer necessary:DeprecationWarning",
    ]
    code = f"import sys\nsys.path.insert(0, {str(ROOT)!r})\n{code}"
    return subprocess.run(
        [sys.executable, "-W", "error", *(f"-W{filter}" for filter in ignored), "-c", code],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_arrows_point_down(path):
    package = path.relative_to(PACKAGE).parts[0]
    used = {name.split(".")[1] for name in imports(path) if name.startswith("pointcluster.")}
    used &= set(BELOW)
    if package in BELOW:
        upward = used - BELOW[package] - {package}
        assert not upward, f"{relative(path)} imports {upward} from above or beside"
    elif package != "__init__.py":
        assert not used, f"{relative(path)} serves all packages and imports {used}"


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_the_library_does_not_import_its_programs(path):
    tops = {name.split(".")[0] for name in imports(path)}
    assert not tops & {"examples", "benchmarks", "tests"}


@pytest.mark.parametrize("package", LIBRARIES)
def test_lower_packages_keep_to_few_libraries(package):
    own = {"pointcluster", *sys.stdlib_module_names}
    paths = sorted((PACKAGE / package).rglob("*.py"))
    assert paths
    for path in paths:
        others = {name.split(".")[0] for name in imports(path)} - own - LIBRARIES[package]
        assert not others, f"{relative(path)} imports {others}"


def test_importing_is_silent_and_light(tmp_path):
    code = f"""
away = {{"socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"}}
def refuse(event, arguments):
    if event in away:
        raise RuntimeError(f"importing pointcluster reaches out: {{event}} {{arguments}}")
sys.addaudithook(refuse)
import torch_geometric
before = set(sys.modules)
import pointcluster
heavy = sorted({ON_DEMAND!r} & (set(sys.modules) - before))
assert not heavy, f"importing pointcluster loads {{heavy}}"
"""
    done = python(code, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout + done.stderr == ""
    assert not list(tmp_path.iterdir())


def test_importing_prints_nothing_of_others_either(tmp_path):
    code = "import pointcluster.datasets, pointcluster.models, pointcluster.transforms"
    command = [sys.executable, "-W", "default", "-c", f"import sys; sys.path[:0] = [{str(ROOT)!r}]"]
    command[-1] += f"; {code}"
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and done.stdout + done.stderr == ""


def test_the_core_works_where_nothing_optional_is_installed(tmp_path):
    absent = sorted(ON_DEMAND | {"pyg_lib", "rich", "torch_scatter", "torch_sparse"})
    code = f"""
for name in {absent!r}:
    sys.modules[name] = None
import torch
from torch_geometric.data import Batch, Data
import pointcluster
from pointcluster import datasets, geometry, nn, transforms
from pointcluster.models import create_model
generator = torch.Generator().manual_seed(0)
clouds = [Data(pos=torch.rand(size, 3, generator=generator)) for size in (300, 200)]
model = create_model("point_coc_tiny", num_classes=5).eval()
logits = model(Batch.from_data_list(clouds))
assert logits.shape == (2, 5) and logits.isfinite().all()
here = {{backend.name for backend in pointcluster.backends() if backend.available}}
assert "torch" in here and not here & {{"torch-cluster", "pyg-lib", "numba"}}, here
"""
    done = python(code, tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "path", [path for path in SOURCES if path.name == "__init__.py"], ids=relative
)
def test_init_files_list_names_and_hold_no_code(path):
    for node in parse(path).body:
        if isinstance(node, ast.Assign):
            names = {target.id for target in node.targets if isinstance(target, ast.Name)}
            assert names in ({"__all__"}, {"__version__"}), f"{relative(path)}:{node.lineno}"
            ast.literal_eval(node.value)
        elif isinstance(node, ast.Expr):
            assert isinstance(node.value, ast.Constant), f"{relative(path)}:{node.lineno}"
        else:
            assert isinstance(node, ast.Import | ast.ImportFrom), f"{relative(path)}:{node.lineno}"


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_every_public_name_is_documented(path):
    tree = parse(path)
    assert ast.get_docstring(tree), f"{relative(path)} says nothing about itself"
    definitions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    for node in tree.body:
        if isinstance(node, definitions) and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"{relative(path)}:{node.lineno} {node.name}"


@pytest.mark.parametrize("path", [*SOURCES, *PROGRAMS], ids=relative)
def test_files_are_loaded_as_data_and_devices_are_named_once(path):
    for call in calls(path):
        if not isinstance(call.func, ast.Attribute):
            continue
        where = f"{relative(path)}:{call.lineno}"
        assert call.func.attr != "cuda", f"{where}: .to(device), so that it runs on any device"
        if call.func.attr == "load" and ast.unparse(call.func.value) == "torch":
            safe = [word for word in call.keywords if word.arg == "weights_only"]
            assert safe, f"{where}: torch.load without weights_only=True runs code from the file"
            assert ast.literal_eval(safe[0].value) is True, where


def test_the_version_stands_in_one_place_and_in_the_changelog():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    assert setup["metadata"]["version"] == "attr: pointcluster.__version__"
    assert re.fullmatch(r"\d+\.\d+\.\d+(\.dev\d+)?", pointcluster.__version__)
    headings = re.findall(r"(?m)^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"))
    assert set(headings[:2]) & {"Unreleased", pointcluster.__version__}


def test_committed_files_speak_of_the_project_alone():
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    # Split, so that this file passes: folders of one machine, and hosts that only pip should name.
    halves = "/wo rk/", "/.lib rary", "/tmp/ w/", "/ro ot/", "pypi .org", "files.python hosted"
    foreign = [word.replace(" ", "") for word in halves]
    for name in filter(None, listed.stdout.split("\0")):
        path = ROOT / name
        content = path.read_bytes() if path.is_file() else b""
        if b"\0" in content:
            continue
        found = [word for word in foreign if word.encode() in content]
        assert not found, f"{name} names {found}"

# `make` lists what there is. The first target that needs it installs an environment into $(VENV), later ones reuse it.

PYTHON ?= python3
VENV ?= .venv
ARGS ?=
BENCHMARKS ?= geometry layer networks
JOBS ?= $(shell getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)
# Processes that share the tests, about 1.5 GiB of memory in all for one of them.
WORKERS ?= $(shell test $(JOBS) -gt 8 && echo 8 || echo $(JOBS))
WHEELS ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/pointcluster/wheels

# The exact versions that the suite last ran with. Not every one of them exists for every Python, so
# other Pythons (or `make CONSTRAINTS=`) take the newest that setup.cfg allows.
PYTHON_VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)
CONSTRAINTS ?= $(if $(filter 3.11 3.12 3.13,$(PYTHON_VERSION)),constraints.txt)

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
# --prefer-binary: an older wheel rather than a newer release that would have to be compiled.
INSTALL := $(PIP) install -qq --prefer-binary $(if $(CONSTRAINTS),-c $(CONSTRAINTS))
EXTENSIONS := torch-cluster==1.6.3 torch-scatter==2.1.2

.DEFAULT_GOAL := help
.PHONY: help modelnet40 scene app test lint format bench ext no-ext clean

help:  ## list the targets
	@echo "usage: make TARGET [ARGS='--option ...'] [PYTHON=python3.12] [VENV=.venv]"
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

modelnet40: $(VENV)/.train  ## train, test and draw a classifier of 3D objects; ARGS=--help tells more
	$(BIN)/python examples/modelnet40.py $(ARGS)

scene: $(VENV)/.scans  ## train, test and draw a network that labels the points of scans; ARGS="--data FOLDER" for your own
	$(BIN)/python examples/segment_scans.py $(ARGS)

app: $(VENV)/.app  ## look at clusters in a browser; ARGS=--help tells more
	$(BIN)/python -m pointcluster.app $(ARGS)

test: $(VENV)/.test  ## run the tests, slow ones last; ARGS='-m "not slow"' leaves these out
	$(BIN)/python -m pytest --numprocesses=$(WORKERS) --dist=worksteal $(ARGS)

lint: $(VENV)/.test  ## check style, formatting and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.test  ## sort imports and lay the code out as lint wants it
	$(BIN)/ruff check --fix --quiet . ; $(BIN)/ruff format .

bench: $(VENV)/.train  ## measure time and memory; BENCHMARKS="geometry" for one of them
	@for name in $(BENCHMARKS); do \
	    echo "== benchmarks/$$name.py $(ARGS)"; $(BIN)/python benchmarks/$$name.py $(ARGS) || exit 1; \
	done

# torch-cluster and torch-scatter have no wheels of their own and are tied to one torch: build each once for each torch, keep
# the wheels outside the checkout. pip's cache is left out, as it does not tell one torch from another.
# A GPU build (torch sees a GPU and there is nvcc) compiles one file at a time, as torch's wrapper of
# the compilers is not safe in threads then. A wheel appears in the cache only when it is whole.
define EXT_TAG
import sysconfig, torch
from torch.utils.cpp_extension import CUDA_HOME
gpu = "-cuda" if CUDA_HOME and torch.cuda.is_available() else ""
print("torch" + torch.__version__ + gpu + "/" + sysconfig.get_config_var("SOABI"))
endef
define EXT_CHECK
import torch, torch_cluster, torch_scatter as s
print("torch-cluster", torch_cluster.__version__, "and torch-scatter", s.__version__, "work with torch", torch.__version__)
endef
export EXT_TAG EXT_CHECK

ext: $(VENV)/.train  ## build torch-cluster and torch-scatter once (about 10 minutes, needs g++) and install them
	@set -e; \
	tag=$$($(BIN)/python -c "$$EXT_TAG"); \
	cache="$(WHEELS)/$$tag"; \
	mkdir -p "$$cache"; \
	for package in $(EXTENSIONS); do \
	    name=$$(echo "$$package" | sed 's/-/_/g; s/==/-/'); \
	    if ! ls "$$cache/$$name"-*.whl > /dev/null 2>&1; then \
	        command -v "$${CXX:-g++}" > /dev/null || \
	            { echo "make ext: no C++ compiler; on Debian: apt-get install g++ python3-dev" >&2; exit 1; }; \
	        echo "building $$package into $$cache"; \
	        $(INSTALL) setuptools wheel; \
	        part=$$(mktemp -d "$$cache/part.XXXXXX"); \
	        trap 'rm -rf "$$part"' EXIT; trap 'exit 130' INT TERM; \
	        case "$$tag" in *-cuda/*) jobs=1;; *) jobs=$(JOBS);; esac; \
	        printf '[build_ext]\nparallel = %s\n' "$$jobs" > "$$part/jobs.cfg"; \
	        DIST_EXTRA_CONFIG="$$part/jobs.cfg" $(PIP) wheel -qq --no-cache-dir --no-deps --no-build-isolation \
	            --no-binary :all: --wheel-dir "$$part" "$$package"; \
	        mv "$$part"/*.whl "$$cache/"; \
	        rm -rf "$$part"; \
	    fi; \
	    set -- "$$@" "$$cache/$$name"-*.whl; \
	done; \
	$(PIP) install -qq --no-deps --no-index --force-reinstall "$$@"; \
	$(BIN)/python -c "$$EXT_CHECK"

no-ext: $(VENV)/.train  ## take torch-cluster and torch-scatter out of the environment again
	$(PIP) uninstall --quiet --yes torch-cluster torch-scatter

clean:  ## delete the environment and all caches in the checkout; built wheels stay
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.created:
	@case "$(PYTHON_VERSION)" in \
	    3.1[0-9]) ;; \
	    '') echo "make: '$(PYTHON)' does not run; name a Python of 3.10 or newer: make PYTHON=python3.12 ..." >&2; exit 1;; \
	    *) echo "make: '$(PYTHON)' is Python $(PYTHON_VERSION), 3.10 or newer is needed: make PYTHON=python3.12 ..." >&2; exit 1;; \
	esac
	@$(PYTHON) -m venv $(VENV) || { echo "make: no environment could be made; on Debian: apt-get install python3-venv" >&2; exit 1; }
	@touch $@

$(VENV)/.train: $(VENV)/.created setup.cfg pyproject.toml $(CONSTRAINTS)
	@echo "installing into $(VENV) what training needs (some minutes the first time)"
	@$(INSTALL) -e '.[train]'
	@touch $@

$(VENV)/.scans: $(VENV)/.train
	@echo "installing into $(VENV) what reading scans needs"
	@$(INSTALL) -e '.[scans,viz]'
	@touch $@

$(VENV)/.app: $(VENV)/.train
	@echo "installing into $(VENV) what the demo needs"
	@$(INSTALL) -e '.[app]'
	@touch $@

$(VENV)/.test: $(VENV)/.train
	@echo "installing into $(VENV) what the tests need"
	@$(INSTALL) -e '.[train,viz,data,scans,image,dense,export,hub,app,test]'
	@touch $@

# `make run` and `make test` need python3 (3.11 or newer) and make; everything else goes into .venv.
# Another interpreter: make run PYTHON=python3.12

PYTHON ?= python3
VENV ?= .venv
OUT ?= runs/journey-42
PYTEST_ARGS ?=
DOCS_OUT ?= docs/_build

BIN := $(VENV)/bin
# -qq: errors only. The constraints pin every version; the stamps make a second call instant.
PIP := $(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt
CORE := $(VENV)/.core.stamp
DEV := $(VENV)/.dev.stamp
TORCH := $(VENV)/.torch.stamp
ONNX := $(VENV)/.onnx.stamp
OPENVINO := $(VENV)/.openvino.stamp
LLM := $(VENV)/.llm.stamp
REPORT := $(VENV)/.report.stamp
ALL := $(VENV)/.all.stamp
FUZZ := $(VENV)/.fuzz.stamp
FUZZ_S ?= 60
FUZZ_TARGETS ?= profile rule tree direct champion config

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help run test test-onnx test-openvino test-llm test-long fuzz lint format docs package results results-full install \
    install-torch install-onnx install-openvino install-llm install-report install-all install-dev clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 24

run: $(CORE)  ## replay the published journey on Ray; resume it if it was interrupted, show it if it is done
	@if [ -e '$(OUT)/resolved.json' ]; then \
	    echo '$(OUT) is there already; for a fresh run: make run OUT=runs/another' >&2; \
	    $(BIN)/evoquant resume '$(OUT)'; \
	else \
	    $(BIN)/evoquant run configs/journey.yaml --out '$(OUT)'; \
	fi

test: $(ALL)  ## install what the tests need, PyTorch too, and run them (PYTEST_ARGS=… is passed on)
	@$(BIN)/python -m pytest $(PYTEST_ARGS)

test-onnx: $(DEV) $(TORCH) $(ONNX)  ## only what ONNX Runtime runs
	@$(BIN)/python -m pytest tests/optional_onnx tests/export/test_verify.py $(PYTEST_ARGS)

test-openvino: $(DEV) $(TORCH) $(OPENVINO)  ## only what OpenVINO runs
	@$(BIN)/python -m pytest tests/optional_openvino $(PYTEST_ARGS)

test-llm: $(DEV) $(TORCH) $(LLM)  ## only what transformers, torchao, llama.cpp and ModelOpt run
	@$(BIN)/python -m pytest tests/optional_hf tests/optional_torchao tests/optional_gguf tests/optional_modelopt $(PYTEST_ARGS)

test-long: $(ALL)  ## kills, lost workers, hostile input: as often as results/reliability.md says
	@$(BIN)/python -m pytest -m long tests $(PYTEST_ARGS)

fuzz: $(DEV) $(FUZZ)  ## coverage-guided fuzzing of what reads profiles, genomes, configs: FUZZ_S=60 seconds each
	@for target in $(FUZZ_TARGETS); do \
	    $(BIN)/python tests/faults/fuzz_parsers.py $$target -max_total_time=$(FUZZ_S) $(FUZZ_ARGS) || exit 1; done

# mypy reads PyTorch's own types, so linting wants it too.
lint: $(ALL)  ## ruff (lint, format) and mypy --strict
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

format: $(DEV)  ## let ruff format and fix what it can
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

# -W: warnings are errors; nothing is fetched. The notebooks run anew: DOCS_OUT=elsewhere for another folder.
docs: $(ALL)  ## build the documentation site, its notebooks executed, in docs/_build
	@$(BIN)/python -m sphinx -W --keep-going -q -c docs -d '$(DOCS_OUT)/.doctrees' . '$(DOCS_OUT)'
	@echo '$(DOCS_OUT)/index.html'

package: $(DEV)  ## build wheel and sdist in dist/, check what they hold, try the sdist's tests unpacked alone
	@$(BIN)/python tests/package/make_package.py
	@$(BIN)/python tests/package/unpacked.py

results: $(ALL)  ## render README, docs and results/ from the rows, and measure a random 2% of them again: minutes
	@$(BIN)/python experiments/results.py

results-full: $(ALL)  ## measure every row anew, table by table; goes on where it stopped; says its hours first
	@$(BIN)/python experiments/results.py --full

install: $(CORE)  ## the package alone, editable, in .venv

install-torch: $(TORCH)  ## also PyTorch and scikit-learn, for real networks

install-onnx: $(ONNX)  ## also onnx and onnxruntime, for networks in ONNX files

install-openvino: $(OPENVINO)  ## also openvino, to export to it and to run what was exported

install-llm: $(LLM)  ## also transformers, compressed-tensors, torchao, llama.cpp and ModelOpt, to deploy language models

install-report: $(REPORT)  ## also plotly and matplotlib, for the report page and plots

install-all: $(ALL)  ## all extras and the development tools, at once

install-dev: $(DEV)  ## also pytest, ruff and mypy

$(BIN)/python:
	@command -v '$(PYTHON)' >/dev/null || { \
	    echo 'evoquant needs Python 3.11 or newer; there is no $(PYTHON) here. Try: make $(MAKECMDGOALS) PYTHON=python3.12' >&2; exit 1; }
	@'$(PYTHON)' -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "evoquant needs Python 3.11 or newer; $(PYTHON) is $$('$(PYTHON)' -V 2>&1). Try: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	@echo 'creating $(VENV)' >&2
	@'$(PYTHON)' -m venv '$(VENV)' || { \
	    rm -rf '$(VENV)'; echo 'the environment could not be made; on Debian and Ubuntu: apt install python3-venv' >&2; exit 1; }

$(CORE): pyproject.toml constraints.txt | $(BIN)/python
	@echo 'installing evoquant into $(VENV) (a minute or two the first time)' >&2
	@$(PIP) -e .
	@touch $@

$(DEV): $(CORE)
	@echo 'installing the development tools' >&2
	@$(PIP) -e '.[dev]'
	@touch $@

$(TORCH): $(CORE)
	@echo 'installing PyTorch and scikit-learn (a few minutes the first time)' >&2
	@$(PIP) -e '.[torch]'
	@touch $@

$(ONNX): $(CORE)
	@$(PIP) -e '.[onnx]'
	@touch $@

$(OPENVINO): $(CORE)
	@$(PIP) -e '.[openvino]'
	@touch $@

$(LLM): $(CORE)
	@echo 'installing transformers, torchao, llama.cpp and ModelOpt' >&2
	@$(PIP) -e '.[llm]'
	@touch $@

$(REPORT): $(CORE)
	@$(PIP) -e '.[report]'
	@touch $@

# All in one call: pip resolves and builds once instead of once for each extra.
$(ALL): pyproject.toml constraints.txt | $(BIN)/python
	@echo 'installing evoquant with all extras and the development tools into $(VENV) (a few minutes the first time)' >&2
	@$(PIP) -e '.[all,docs,dev]'
	@touch $(CORE) $(DEV) $(TORCH) $(ONNX) $(OPENVINO) $(LLM) $(REPORT) $@

$(FUZZ): $(CORE)
	@$(PIP) -e '.[fuzz]'
	@touch $@

clean:  ## remove .venv, caches and builds; runs stay
	rm -rf '$(VENV)' build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

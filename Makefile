# `make` prints what there is. Everything is installed into .venv; nothing else on the machine is changed.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
BACKENDS := $(VENV)/.backends
DEMO := demo
QUALITY := hefw-quality
COMPARE := hefw-compare
# One version, written once. Torch comes first and by this very requirement, so that an index which offers a CPU build is used.
TORCH := $(shell sed -n 's/^\(torch==[^ ;]*\).*/\1/p' constraints.txt)

# Libraries that need another Python go into managed environments; here these are in .venv, too.
export HEFW_HOME := $(CURDIR)/$(VENV)/hefw
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export NO_MKDOCS_2_WARNING := 1

.DEFAULT_GOAL := help
.PHONY: help setup backends demo test check quality compare docs bench bench-compare clean

help:  ## Print this list
	@sed -n 's/^\([a-z-]*\):.*##  *\(.*\)/  make \1	\2/p' $(MAKEFILE_LIST) | expand -t 22

setup: $(STAMP)  ## Make .venv and install hefw with everything that development needs

$(STAMP): pyproject.toml constraints.txt Makefile
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "error: Python 3.11 or newer is needed, '$(PYTHON)' is $$($(PYTHON) --version 2>&1 || true);" \
			"name another one: make PYTHON=python3.12 setup" >&2; exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV) || { \
		echo "error: '$(PYTHON) -m venv' failed; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	$(BIN)/python -m pip install --quiet $(TORCH)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[all,test,docs]'
	@echo "trying tenseal, whose loops are compiled once"; $(BIN)/hefw backends doctor tenseal > $(VENV)/doctor.txt || \
		{ cat $(VENV)/doctor.txt; exit 1; }
	@touch $@

backends: $(BACKENDS)  ## Install every HE library that the tests need: OpenFHE, and Pyfhel from source (5 minutes)

$(BACKENDS): $(STAMP) $(wildcard hefw/backends/*/plugin.py)
	PIP_CONSTRAINT=constraints.txt $(BIN)/hefw backends install openfhe
	PIP_CONSTRAINT=constraints.txt $(BIN)/hefw backends install pyfhel
	@touch $@

demo: setup  ## Draw 16 digits on ciphertext
	$(BIN)/hefw generate --labels 0-9,0-5 --steps 10 --backend tenseal --out $(DEMO)
	@echo "The pictures: $(DEMO)/images.png, steps.png, plain.png, server_view.png. All on one page: $(DEMO)/report.html"

test: setup backends  ## Run the tests, on every HE library
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile

check: setup  ## Linter, format, types, documentation
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mkdocs build --strict --quiet --site-dir site

quality: setup  ## Judge the pictures of every model, in plaintext
	$(BIN)/hefw quality --all --samples 300 --simulated 0 --encrypted 0 --out $(QUALITY)
	@echo "All on one page: $(QUALITY)/all.html"

compare: setup  ## Compare encrypted with simulated, whole with partial: a few minutes
	$(BIN)/hefw compare --preset quick --out $(COMPARE)
	@echo "All on one page: $(COMPARE)/report.html"

docs: setup  ## Build the documentation into site/
	$(BIN)/mkdocs build --strict --site-dir site

bench: setup backends  ## Run the benchmarks and save what they found, 10 minutes
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest benchmarks --benchmark-autosave --benchmark-group-by=func \
		--benchmark-columns=median,iqr,rounds --benchmark-max-time=0.2 --benchmark-min-rounds=3 --benchmark-warmup=off

bench-compare: setup  ## Compare the last two runs of the benchmarks
	$(BIN)/pytest-benchmark compare --group-by=fullname --columns=median,iqr $$(ls -t .benchmarks/*/*.json | head -2)
	$(BIN)/python -m benchmarks.runs

clean:  ## Remove what the other targets made, .venv too
	rm -rf $(VENV) $(DEMO) $(QUALITY) $(COMPARE) site build dist hefw.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks
	find hefw tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

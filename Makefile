# Two commands are complete on a fresh machine that has Python >= 3.11 and make: `make demo` and `make test`.
PYTHON ?= python3
BIN    := .venv/bin
READY  := .venv/.ready
CODE   := packages services tests recipes/demo bench
MEMBERS := $(patsubst %/pyproject.toml,%,$(wildcard packages/*/pyproject.toml services/*/pyproject.toml))

.DEFAULT_GOAL := help

# Where it is set, as in many images, every process of a demo or a test run would compile all sources anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help
help:  ## what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

$(READY): constraints.txt pyproject.toml $(MEMBERS:%=%/pyproject.toml)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "Winnow needs Python 3.11 or later; $(PYTHON) is $$($(PYTHON) --version). Try: make PYTHON=python3.12 demo" >&2; exit 2; }
	@echo "Installing into .venv (once; about 2.6 GB, a few minutes) ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --upgrade 'pip>=25.1'
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --constraint constraints.txt --group dev \
		$(MEMBERS:%=--editable %)
	@touch $(READY)

.PHONY: demo
demo: $(READY)  ## raw text -> mixture -> trained model -> traced report, over HTTP, in three to five minutes
	@$(BIN)/python recipes/demo/run.py --out out/demo

.PHONY: serve
serve: $(READY)  ## the HTTP service and its page, over what the demo made, on http://127.0.0.1:8787 until ^C
	@$(BIN)/gateway serve --home out/demo/service --store out/demo/store --raw-root out/demo/raw --raw-root raw \
		--sizes recipes/sizes.yaml

TEST_JOBS ?= 2
.PHONY: test
test: $(READY)  ## all tests but the slow ones and those that need a GPU; TEST_JOBS=N at once
	@$(BIN)/pytest -m "not slow and not gpu" -n $(TEST_JOBS) --dist loadfile

.PHONY: test-slow
test-slow: $(READY)  ## the tests that take minutes
	@$(BIN)/pytest -m slow

.PHONY: test-properties
test-properties: $(READY)  ## the property tests with ten times as many examples
	@$(BIN)/pytest -m "hypothesis and not slow and not gpu" --hypothesis-profile=thorough -n $(TEST_JOBS) --dist loadfile

.PHONY: test-gpu
test-gpu: $(READY)  ## the tests that need a CUDA device
	@$(BIN)/pytest -m gpu

BENCH_DOCUMENTS ?= 201500
BENCH_RAW       ?=
BENCH_SYSTEMS   ?=
BENCH_REPEATS   ?= 3
BENCH_FLAGS     ?=

.PHONY: bench-dedup
bench-dedup: $(READY)  ## Winnow beside its peers: cost and quality of near-duplicate removal (bench/README.md)
	@$(BIN)/python -m bench.dedup --documents $(BENCH_DOCUMENTS) --raw "$(BENCH_RAW)" --systems "$(BENCH_SYSTEMS)" \
		--repeats $(BENCH_REPEATS) $(BENCH_FLAGS)

.PHONY: bench-train
bench-train: $(READY)  ## the trainer beside a bare loop of torch and the Hugging Face Trainer, same model and data
	@$(BIN)/python -m bench.train $(BENCH_FLAGS)

.PHONY: bench-mixture
bench-mixture: $(READY)  ## tokenising, loading, opening, tracing and packing of mixtures, against peers and goals
	@$(BIN)/python -m bench.mixture --repeats $(BENCH_REPEATS) $(BENCH_FLAGS)

.PHONY: check
check: $(READY)  ## style, types, layers
	@$(BIN)/ruff check $(CODE)
	@$(BIN)/ruff format --check $(CODE)
	@$(BIN)/mypy $(MEMBERS:%=%/src) recipes/demo/run.py bench/gpu.py bench/machine.py bench/dedup/*.py bench/mixture/*.py bench/train/*.py
	@$(BIN)/lint-imports

.PHONY: fix
fix: $(READY)  ## format, and mend what can be mended by itself
	@$(BIN)/ruff check --fix $(CODE)
	@$(BIN)/ruff format $(CODE)

.PHONY: lock
lock: $(READY)  ## write constraints.txt from what is installed now
	@$(BIN)/python -m pip freeze --exclude-editable | sed 's/^\(torch==[^+]*\)+.*/\1/' | grep -v '^winnow-' > constraints.txt

.PHONY: clean
clean:  ## remove what the demo made
	rm -rf out

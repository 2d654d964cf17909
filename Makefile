.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
NATIVE := $(wildcard native/* native/*/*)
DEMO_ARGS ?=
SCENARIO ?=
MUTANTS ?= 400
ARGS ?=

.PHONY: help demo test check bench bench-decisions bench-flights test-chaos test-mutation test-native bench-storm clean

help: ## Show this
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

$(STAMP): pyproject.toml $(NATIVE)
	@test -d .venv || $(PYTHON) -m venv .venv 1>&2
	@$(BIN)/pip install --quiet --disable-pip-version-check -e '.[dev,demo,notify]' 1>&2
	@mkdir -p .cache && rm -rf .cache/native && cp -R native .cache/native  # what building leaves there stays out of the tree
	@$(BIN)/pip install --quiet --disable-pip-version-check --force-reinstall --no-deps .cache/native >.cache/native.log 2>&1 || \
		echo "the compiled part could not be built (.cache/native.log): events are read without it, at about twice the CPU time" 1>&2
	@touch $@

demo: $(STAMP) ## Monitor a year of real flights with three injected faults, on an embedded broker
	@$(BIN)/monitor demo $(DEMO_ARGS)

check: $(STAMP) ## Lint, types, import contracts
	@$(BIN)/ruff check monitor native tests benchmarks
	@$(BIN)/ruff format --check --quiet monitor native tests benchmarks
	@$(BIN)/mypy
	@$(BIN)/lint-imports

test: check ## Everything; the tests on Apache Kafka too, where Java and Maven are
	@$(BIN)/python -m pytest --doctest-modules --numprocesses 2 --ignore tests/integration
	@$(BIN)/python -m pytest --numprocesses 3 --dist loadfile -m "not chaos" tests/integration

bench: $(STAMP) ## Speed on Apache Kafka beside other tools, growth, closing, latency (60 min); ARGS="--only models,close --rounds 2"
	@$(BIN)/python -m benchmarks $(ARGS)

bench-decisions: $(STAMP) ## False alarms and power of the default rules beside other tools; ARGS="--seed 1 --only iid"
	@$(BIN)/python -m benchmarks.decisions $(ARGS)

bench-flights: $(STAMP) ## Alarms of an untouched year of flights, each with its cause, beside other tools; ARGS=--alone: without these
	@$(BIN)/python -m benchmarks.flights $(ARGS)

test-chaos: $(STAMP) ## Faults on Apache Kafka: all scenarios (50 min), or SCENARIO=R1|R2|…; FULL=1, SEED=N, JSON=file
	@$(BIN)/python -m tests.chaos $(SCENARIO) $(if $(FULL),--full) $(if $(SEED),--seed $(SEED)) $(if $(JSON),--json $(JSON))

test-mutation: $(STAMP) ## Mutation score of windows, stages and codec, of a sample of MUTANTS=400 (0: all; an hour or more)
	@$(BIN)/pip install --quiet --disable-pip-version-check -e '.[mutation]' 1>&2
	@nice -n 15 $(BIN)/python -m tests.mutation --mutants $(MUTANTS)

test-native: $(STAMP) ## The compiled part with gcc's sanitizers: no byte is touched that is not its own
	@rm -rf .cache/sanitized && mkdir -p .cache/sanitized && cp -R native .cache/sanitized/source
	@CFLAGS="-fsanitize=address,undefined -fno-omit-frame-pointer -g -O1" \
		$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --target .cache/sanitized/lib .cache/sanitized/source 1>&2
	@LD_PRELOAD="$$(gcc -print-file-name=libasan.so) $$(gcc -print-file-name=libubsan.so)" UBSAN_OPTIONS=halt_on_error=1 \
		ASAN_OPTIONS=detect_leaks=0 PYTHONMALLOC=malloc PYTHONPATH=.cache/sanitized/lib \
		$(BIN)/python -m pytest -q -p no:cacheprovider tests/unit/test_table_reader.py \
		tests/properties/test_tables.py tests/properties/test_tally.py tests/properties/test_id_sample.py \
		tests/properties/test_varint.py

bench-storm: $(STAMP) ## Null storms on 200 features, 100 seeds: one incident each, its root named
	@NULL_STORM_SEEDS=100 $(BIN)/python -m pytest -q -s tests/unit/test_null_storm.py

clean: ## Remove what the targets made
	@rm -rf .venv .cache .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis

# Everything runs in .venv, made on first use. `make demo` shows what peftune does; `make test` tests it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test check lint slow docs example bench bench-smoke clean

demo: $(READY)
	$(BIN)/peftune compare recipes/quickstart.yaml --strategies full,lora,lora-8bit --seeds 0

test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow" --numprocesses auto --dist loadfile --no-loadscope-reorder

check: lint test docs

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

slow: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow --numprocesses auto --dist loadfile --no-loadscope-reorder

example: $(READY)
	rm -rf build/example
	$(BIN)/pip install --quiet --no-deps --no-build-isolation --target build/example docs/examples/peftune-bitfit
	PYTHONPATH=build/example $(BIN)/python -m pytest docs/examples/peftune-bitfit

# Most of an hour on two cores that do nothing else.
bench: $(READY)
	$(BIN)/python -m benchmarks --shape gpt2 --rounds 5 --strategies lora,full,lora-8bit --batch 4,32 --out build/bench/result.json
	$(BIN)/python -m benchmarks table build/bench/result.json docs/results.md

bench-smoke: $(READY)
	$(BIN)/python -m benchmarks --shape tiny --small --rounds 1 --strategies lora --contenders T,H,P,F --only startup,gates,speed --batch 4 --out build/bench/smoke.json

docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# torch comes first and alone: with it in place no other package brings a build of its own.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; (3, 10) <= sys.version_info[:2] <= (3, 13) or sys.exit("peftune needs Python 3.10 to 3.13; name one with PYTHON=…, such as: make demo PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt pip
	$(BIN)/python -m pip install --quiet -c constraints.txt torch
	$(BIN)/python -m pip install --quiet -c constraints.txt --editable . --group dev --group docs
	touch $(READY)

clean:
	rm -rf $(VENV) runs site build dist *.egg-info

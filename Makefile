# Every command of the project; `make` alone lists them. Each one makes or repairs .venv first (scripts/environment.sh).

export PYTHON ?= python3
HOST ?= 127.0.0.1
PORT ?= 8000
BIN := .venv/bin

.DEFAULT_GOAL := help
.PHONY: help env system demo test check fix bench fuzz openapi sbom serve lock clean

help: ## list these commands
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' Makefile

env:
	@scripts/environment.sh

system: ## bring what Debian's packages must: OpenCV's libraries, the venv module, servers for tests (as root or with sudo)
	@scripts/system.sh install

demo: env ## make clips, train, serve, ask, and draw the labels over time in demo/; CLIPS=folder (GROUP_BY=column): your own
	@$(BIN)/python scripts/demo.py --out demo $(if $(CLIPS),--clips "$$CLIPS") $(if $(GROUP_BY),--group-by "$$GROUP_BY")

test: env ## run all tests; ARGS='-k state' for some of them
	@$(BIN)/python -m pytest $(ARGS)

check: env ## ruff, mypy --strict and import-linter, changing nothing
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@$(BIN)/lint-imports

fix: env ## let ruff mend and format what it can
	@$(BIN)/ruff check --fix
	@$(BIN)/ruff format

bench: env ## measure speed and memory side by side (benchmarks/)
	@$(BIN)/python -m benchmarks $(ARGS)

fuzz: env ## decode mutants of clips, 20,000 or for ten minutes; ARGS='--seconds 30 --seed 1' for fewer
	@$(BIN)/python -m benchmarks.fuzz $(ARGS)

sbom: env ## write sbom.json: every package of a service and every native library inside, as CycloneDX; ARGS='--out FILE'
	@$(BIN)/python scripts/sbom.py $(ARGS)

serve: env ## serve a model: MODEL=folder, HOST and PORT (127.0.0.1 and 8000); ARGS='--keys FILE' lets others ask
	@test -n "$$MODEL" || { echo "vidseq: name a model's folder, as in 'make serve MODEL=demo/model'." >&2; exit 2; }
	@$(BIN)/vidseq serve "$$MODEL" --host "$(HOST)" --port "$(PORT)" $(ARGS)

openapi: env ## write docs/openapi.json anew; refuses what /v1 promises not to do, unless ARGS=--breaking
	@$(BIN)/python -m scripts.openapi $(ARGS)

lock: env ## write constraints.txt anew from pyproject.toml; ARGS=--upgrade takes newer versions
	@$(BIN)/uv pip compile pyproject.toml --quiet --universal --python-version 3.11 --extra dev \
		--generate-hashes --no-header --no-annotate --output-file constraints.txt $(ARGS)

clean: ## remove what these commands made: .venv, caches, demo/, dist/
	@rm -rf .venv demo dist sbom.json .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

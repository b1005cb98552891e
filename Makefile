# make help lists what there is. Every target prepares what it needs first (scripts/setup.sh), which is quick when nothing changed.
TO ?= es
VIDEO ?=
# by environment, so that spaces and quotes in file names arrive unharmed
export TO VIDEO

.PHONY: help demo web test check chaos lint format types layers documents names tests tests-on-ray tests-beside tests-of-jobs bench docs lock clean
.DEFAULT_GOAL := help

help: ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):[^#]*## */  make \1	/'
	@echo
	@echo '  make demo VIDEO=talk.mp4 TO=es    dub a video of your own'

demo: ## dub a video into TO (default es); without VIDEO=file a short one is made first
	@scripts/setup.sh run
	@scripts/demo.sh "$$VIDEO" "$$TO"

web: ## the web server with the draft engines, until Ctrl-C; HOST, PORT and the rest of docs/settings.md are obeyed
	@scripts/setup.sh run
	@.venv/bin/dubbing-web

test: ## everything that must hold: lint, types, layers, documents, names, tests
	@scripts/setup.sh test
	@$(MAKE) --no-print-directory --keep-going check

# one run shows everything that is wrong, so none of these stops the next; the tests come last
check: lint format types layers documents names tests
lint:
	.venv/bin/ruff check .
format:
	.venv/bin/ruff format --check .
types:
	.venv/bin/mypy
layers:
	.venv/bin/lint-imports
documents:
	.venv/bin/python scripts/make_docs.py --check
names:
	.venv/bin/python scripts/verify_no_anime_or_versions.py
# two at once: what waits for Ray leaves a core to what does not; whole jobs must not find models of other tests
RAY := tests/cluster $(foreach name,golden_path quality_good queue_commands ray_road run_queue,tests/e2e/test_$(name).py)
tests:
	@$(MAKE) --no-print-directory --keep-going --jobs 2 --output-sync=target tests-on-ray tests-beside tests-of-jobs
tests-on-ray:
	.venv/bin/python -m pytest --durations 25 $(RAY)
tests-beside:
	.venv/bin/python -m pytest --durations 25 --ignore tests/cluster --ignore tests/e2e tests
tests-of-jobs:
	.venv/bin/python -m pytest --durations 10 $(addprefix --ignore ,$(RAY)) tests/e2e

chaos: ## the long run of the queue's tests: thousands of modelled steps, hundreds of kills, nodes that die
	@scripts/setup.sh test
	DUBBING_TEST_CHAOS=1 .venv/bin/python -m pytest -s --timeout 3600 tests/queue tests/cluster/test_control.py tests/cluster/test_nodes.py tests/cluster/test_scaling.py

bench: ## run the benchmarks of scripts/bench, one after the other
	@scripts/setup.sh run
	@for file in scripts/bench/*.py; do echo "== $$file" && .venv/bin/python "$$file" || exit; done

docs: ## write the generated documents anew
	@scripts/setup.sh run
	.venv/bin/python scripts/make_docs.py

lock: ## resolve requirements/*.txt anew from pyproject.toml (needs uv)
	scripts/lock.sh

clean: ## remove what was built; results in Output/ stay
	rm -rf .venv .setup build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

# The README's commands. Each does all its own set-up: only Python 3.11 or later, make and git are needed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

# Lines are counted from Python 3.12 on, where it costs nothing to speak of; with 3.11, COVERAGE="--cov --cov-report=" does.
COVERAGE ?= $(shell $(PYTHON) -c 'import sys; sys.version_info >= (3, 12) and print("--cov --cov-report=")')

.PHONY: demo test test-pythons test-torch test-spark bench lint docs proto clean setup dist images
.DEFAULT_GOAL := demo

# A hub and four centers on this machine, and a researcher who asks them. KEEP=1 leaves it running.
demo: $(READY)
	$(BIN)/python -m deploy.local.demo $(if $(KEEP),--keep)

# Everything that must hold, in the order of what breaks soonest. Three at a time on two cores: the long ones often wait.
# Linear algebra with threads of its own would only make them wait for each other.
test: lint
	OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 COVERAGE_CORE=$$($(BIN)/python -c 'import sys; print("sysmon" if sys.version_info >= (3, 12) else "ctrace")') \
	    $(BIN)/python -m pytest -m "not spark" --numprocesses 3 --dist loadgroup $(COVERAGE) $(ARGS)
	@test -z "$(COVERAGE)" || echo "Lines covered, but for those that run in processes of their own:" \
	    "$$($(BIN)/coverage report --format=total) %. Which ones are not: $(BIN)/coverage html, then htmlcov/index.html"

# The fast tests on each supported Python that is installed; those that are not are named. PYTHONS="3.12 3.14" picks some.
PYTHONS ?= 3.11 3.12 3.13 3.14
test-pythons:
	@missing=; failed=; for version in $(PYTHONS); do \
	    if ! command=$$(PYENV_VERSION=$$version python$$version -c 'import sys; print(sys.executable)' 2>/dev/null); then \
	        missing="$$missing $$version"; continue; \
	    fi; \
	    echo "Python $$version:"; \
	    $(MAKE) --no-print-directory setup PYTHON="$$command" VENV=".venvs/$$version" \
	        && ".venvs/$$version/bin/python" -m pytest tests/unit tests/policies --numprocesses 2 $(ARGS) \
	        || failed="$$failed $$version"; \
	done; \
	if [ -n "$$missing" ]; then echo "Not installed here, so not tested:$$missing"; fi; \
	if [ -n "$$failed" ]; then echo "Failed:$$failed"; exit 1; fi

# Perceptrons, which PyTorch trains. Installs it, a few hundred megabytes; `make test` skips these tests without it.
test-torch: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[all,dev,torch]'
	$(BIN)/python -m pytest -m torch $(ARGS)

# The engine's contract on a real Spark master with two workers. Needs Java 17; installs pyspark, half a gigabyte.
test-spark: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[all,dev,spark]'
	$(BIN)/python -m pytest -m spark --timeout 600 $(ARGS)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python proto/generate.py --check
	$(BIN)/lint-imports
	$(BIN)/mypy

# Speed, beside the plain library in the same run; writes bench-*.json. ARGS="count fanout" picks some.
bench: $(READY)
	$(BIN)/python -m tests.bench $(ARGS)

# The documentation as a site in site/; a warning fails it. The pages made from the code are written first.
docs: $(READY)
	$(BIN)/python -m docs.tools
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

# What is handed out, into dist/: wheel, source, bill of materials, checksums. Installs the tool that writes the bill.
dist: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[all,dev,dist]'
	rm -rf dist
	$(BIN)/python -m deploy.distribution dist

# Images of hub and node from what `make dist` wrote and Debian's packages. Needs root, buildah and mmdebstrap.
images: dist
	deploy/images/build.sh

# Regenerate the wire stubs after a change in proto/.
proto: $(READY)
	$(BIN)/python proto/generate.py

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Connexon needs Python 3.11 or later; name one with  make PYTHON=python3.11")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV), once: a minute or two ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[all,dev]'
	@touch $(READY)

clean:
	rm -rf $(VENV) .venvs .demo .coverage htmlcov dist site

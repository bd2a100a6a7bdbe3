# Thin names for what ./tallystick and ops/setup do; see `./tallystick --help` for everything else.
# Arguments go in ARGS: make test ARGS="tests/core -x".

.PHONY: help up test drill matrix fuzz chaos check format lock bench demo e2e cash-demo load clean docs sbom audit licenses
.PHONY: verify dev run lint cov perf db-upgrade pm2-start pm2-stop observability docker-smoke

help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

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

docs: ## write the documentation as a site with a Postman collection: build/site/
	@./tallystick docs $(ARGS)

sbom: ## write the bill of materials of the packages that are served with: build/sbom.json
	@./tallystick supply sbom

audit: ## ask for known weaknesses of these packages
	@./tallystick supply audit

licenses: ## list the licences of these packages, and refuse what is not known to be harmless
	@./tallystick supply licenses

verify: ## every gate (check, packages, tests, drills), with a summary
	@./tallystick gates $(ARGS)

# What ruff cannot mend, `make check` tells.
format: ## format the Python sources and mend what the linters can
	@./tallystick setup --dev
	@.venv/bin/ruff check --fix --quiet . || true
	@.venv/bin/ruff format .

lock: ## write ops/lock/*.txt from pyproject.toml (ARGS=--upgrade for newer versions)
	@ops/setup/lock $(ARGS)

proto: ## write the messages of gRPC in core/wire/ from docs/proto/*.proto
	@.venv/bin/python -m grpc_tools.protoc -Idocs/proto --python_out=core/wire --pyi_out=core/wire docs/proto/*.proto

matrix: ## run the chosen tests on each PostgreSQL and Redis of this machine, and print the table (minutes)
	@./tallystick setup --dev
	@.venv/bin/python -m tests.database.matrix

bench: ## run the benchmark; the report goes to loadtests/results/
	@./tallystick bench $(ARGS)

demo: ## show an event's way through a running service
	@./tallystick demo $(ARGS)

e2e: ## pay in every way once, against the development service that runs here, or at TALLYSTICK_URL
	@examples/e2e.sh

cash-demo: ## cash in and out through an agent, against the same
	@examples/cash_demo.sh

load: ## load a service and hold it to its budgets (SUITE=qr USERS=20, ARGS=--step for the knee)
	@./tallystick load $(if $(SUITE),--suite $(SUITE)) $(if $(USERS),--users $(USERS)) $(ARGS)

# Names of the services before this one.
dev: up ## the same as up

run: ## serve the API alone, on the servers of DATABASE_URL and REDIS_URL
	@./tallystick serve $(ARGS)

lint: ## check lint of Python, SQL and shell
	@./tallystick check lint sql shell $(ARGS)

cov: ## run the tests, and list the lines that none reaches
	@./tallystick setup --dev
	@.venv/bin/python -m coverage run --branch --source=core,handlers,jobs,ops -m pytest -q -m "not drill" $(ARGS)
	@.venv/bin/python -m coverage report --show-missing --skip-covered

perf: load ## the same as load

db-upgrade: ## bring the schema of DATABASE_URL up to date
	@./tallystick migrate $(ARGS)

pm2-start: ## start the API and the worker under PM2 (npm install --global pm2)
	@./tallystick setup
	@pm2 start ops/pm2/ecosystem.config.cjs $(ARGS)

pm2-stop: ## stop them, and take them from PM2's list
	@pm2 delete ops/pm2/ecosystem.config.cjs $(ARGS)

observability: ## start Prometheus, Alertmanager and Grafana beside docker-compose.yml's services
	@docker compose --profile observability up --detach --wait prometheus alertmanager grafana $(ARGS)

docker-smoke: ## build the image, and try docker-compose.yml: up, a transfer, a webhook, a roll under load, down
	@./tallystick setup --dev
	@.venv/bin/python -m ops.deploy.smoke $(ARGS)

clean: ## remove .venv and caches; data in .state stays
	@rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis build *.egg-info
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

"""The commands, with a line each. The file imports nothing, so that an overview needs no packages and no command."""

# The groups, in the order in which a newcomer meets them: title, then name, place and line of each command.
GROUPS: dict[str, dict[str, tuple[str, str]]] = {
    "Run": {
        "up": ("ops.commands.up:up", "Run everything on this machine: PostgreSQL, Redis, API and worker."),
        "serve": ("ops.commands.serve:serve", "Serve the HTTP API, in one process or several."),
        "worker": (
            "ops.commands.worker:worker",
            "Process events, deliveries and everything else that is due.",
        ),
        "migrate": ("ops.commands.migrate:migrate", "Bring the database's schema up to date."),
        "pooler": (
            "ops.commands.database:pooler",
            "Print the statements that let a login serve through a pooler.",
        ),
        "import": (
            "ops.commands.importing:import_",
            "Carry over the database of a service before this one.",
        ),
        "version": ("ops.commands.version:version", "Show the version of this program."),
    },
    "Operate": {
        "verify": ("ops.commands.verify:verify", "Check that the ledger's records agree with each other."),
        "reconcile": (
            "ops.commands.reconcile:reconcile",
            "Compare wallets' balances with their entries; correct them if asked.",
        ),
        "backup": (
            "ops.commands.data.backup:backup",
            "Back up the database to a folder or a bucket; list and check backups.",
        ),
        "restore": (
            "ops.commands.data.restore:restore",
            "Restore a backup into an empty database, and verify it.",
        ),
        "recovered": (
            "ops.commands.data.restore:recovered",
            "Verify a database that PostgreSQL has recovered, and begin a new epoch.",
        ),
        "keys": ("ops.commands.keys:keys", "Create, list and revoke API keys."),
        "secrets": (
            "ops.commands.secrets.command:secrets",
            "List secrets, make fresh ones, check those that are set.",
        ),
        "agents": ("ops.commands.agents:agents", "Appoint, suspend, bound and list cash agents."),
        "events": ("ops.commands.events:events", "Look at the events that came in, and what became of them."),
        "payments": (
            "ops.commands.payments.group:payments",
            "Look at payments, say what a person knows, ask providers, read their reports.",
        ),
        "callbacks": (
            "ops.commands.payments.callbacks:callbacks",
            "Send callbacks about payments, show their receivers and secrets.",
        ),
        "orders": (
            "ops.commands.payments.orders:orders",
            "List merchants of orders, give them keys and addresses.",
        ),
        "kaspi": (
            "ops.commands.payments.kaspi:kaspi",
            "Say which organization Kaspi pays for each shop, register devices.",
        ),
        "dlq": ("ops.commands.dlq:dlq", "Look at dead letters, replay or discard them."),
        "sources": ("ops.commands.sources:sources", "Register sources of webhooks, change their secrets."),
        "deliveries": (
            "ops.commands.deliveries:deliveries",
            "Look at deliveries of webhooks, send them again.",
        ),
        "requeue": (
            "ops.commands.deliveries:requeue",
            "Make deliveries of webhooks due again, all at once.",
        ),
        "backfill": ("ops.commands.backfill:backfill", "Fetch events that a provider could not deliver."),
        "closing": (
            "ops.commands.settlement:closing",
            "Show and move the closed dates of currencies.",
        ),
        "settlement": ("ops.commands.settlement:settlement", "Write the sales of each merchant as CSV."),
        "autopay": ("ops.commands.wallet_jobs:autopay", "Pay due invoices that a mandate covers."),
        "charge": ("ops.commands.wallet_jobs:charge", "Charge subscriptions that are due."),
        "expire": (
            "ops.commands.wallet_jobs:expire",
            "End payables whose time is over; `expire pending`: payments.",
        ),
        "settle": ("ops.commands.wallet_jobs:settle", "Report the sales of the day before to merchants."),
        "retain": (
            "ops.commands.wallet_jobs:retain",
            "Remove audit records and sign-ins whose time is over.",
        ),
        "archive": (
            "ops.commands.partitions.archive:archive",
            "Archive old attempts and audit records, list and restore them.",
        ),
    },
    "Develop": {
        "env": (
            "ops.commands.develop.env:env",
            "Print the address and the key of the service that runs here.",
        ),
        "listen": ("ops.commands.events:listen", "Show each arriving event and its fate, live."),
        "trigger": (
            "ops.commands.develop.trigger:trigger",
            "Send a signed event, as a provider would, and show its fate.",
        ),
        "demo": (
            "ops.commands.develop.demo:demo",
            "Show an event's way from a signed webhook to a verified delivery.",
        ),
        "seed": (
            "ops.commands.develop.seed:seed",
            "Make providers, plans and merchants to try orders with.",
        ),
        "simulator": (
            "ops.commands.develop.simulator:simulator",
            "Be a payment provider: charge nobody, fail as you are told.",
        ),
        "pos": (
            "ops.commands.develop.pos:pos",
            "Be a till: show QR codes, wait for their payment, ask a customer.",
        ),
        "docs": (
            "ops.commands.develop.site:docs",
            "Write the documentation as a site, with a Postman collection.",
        ),
        "bench": ("ops.commands.develop.bench:bench", "Measure the speed, beside the floors that bound it."),
        "load": (
            "ops.commands.develop.load:load",
            "Put a load on the service and hold it to its latency budgets.",
        ),
        "chaos": (
            "ops.commands.develop.chaos:chaos",
            "Kill, cut and fill the parts of a service under load, then check the books.",
        ),
    },
}
COMMANDS = {name: told for group in GROUPS.values() for name, told in group.items()}

from loadtests.bench.clients.pgbench import parse

REPORT = """pgbench (18.6)
transaction type: /tmp/tallystick-pgbench.sql
scaling factor: 1
query mode: prepared
number of clients: 8
number of threads: 2
maximum number of tries: 1
duration: 1 s
number of transactions actually processed: 1652
number of failed transactions: 0 (0.000%)
latency average = 4.555 ms
initial connection time = 48.123 ms
tps = 1756.000000 (without initial connection time)
"""


def test_the_report_of_pgbench_is_read() -> None:
    result = parse(REPORT, 1, 0.25)
    assert result is not None
    assert result.requests == 1652
    assert round(result.requests / result.seconds) == 1756
    assert result.latency_ms == {"mean": 4.555}
    assert (result.errors, result.client, result.cpu_seconds) == ({}, "pgbench", 0.25)


def test_failed_transactions_and_aborted_clients_are_errors() -> None:
    lines = "pgbench: error: client 3 script 0 aborted in command 3 query 0: ERROR:  division by zero\n"
    result = parse(lines + REPORT.replace("transactions: 0 (", "transactions: 7 ("), 1, 0)
    assert result is not None
    assert result.errors == {"failed": 7, "aborted_clients": 1}


def test_an_output_without_a_report_gives_nothing() -> None:
    assert parse("pgbench: error: connection to server failed\n", 1, 0) is None

"""Reports are read as they come: encodings, preambles, amounts, signs, and rows that nobody can read."""

import io
from zoneinfo import ZoneInfo

import pytest

from core.errors import Refusal
from core.payments.reports import reading
from core.payments.reports.mapping import changed, preset
from core.payments.reports.reading import Line, Reader

STRIPE = "balance_transaction_id,created_utc,currency,gross,fee,reporting_category,source_id,charge_id,description\n"
KASPI = "Номер операции;Дата;Тип операции;Сумма операции (тг);Комиссия\n"


def read(text: str | bytes, form: str, mapping: bytes | None = None) -> tuple[list[Line], int]:
    data = text if isinstance(text, bytes) else text.encode()
    chosen = preset(form) if mapping is None else changed(preset(form), mapping)
    reader = Reader(io.BytesIO(data), chosen, form)
    return list(reader), reader.ignored


def money(lines: list[Line]) -> list[tuple[int, str, int, int | None, str]]:
    return [(one.line, one.part, one.amount, one.fee, one.currency) for one in lines if one.problem is None]


def test_a_balance_report_of_stripe() -> None:
    lines, _ = read(
        STRIPE
        + 'txn_1,2026-01-31 12:00:00,eur,"1,234.50",3.45,charge,ch_1,ch_1,"two\nlines"\n'
        + "txn_2,2026-01-31 12:00:00,eur,-5.00,0.00,refund,re_1,ch_1,\n"
        + "txn_3,2026-01-31 12:00:00,eur,5.00,0.00,refund_failure,re_1,ch_1,\n"
        + "txn_4,2026-01-31 12:00:00,jpy,500,15,charge,ch_2,ch_2,\n"
        + "txn_5,2026-01-31 12:00:00,eur,-9.00,15.00,dispute,dp_1,ch_1,\n"
        + "txn_6,2026-01-31 12:00:00,eur,-1000.00,0,payout,po_1,,\n"
        + "txn_7,2026-01-31 12:00:00,eur,1000.00,0,payout_reversal,po_1,,\n"
        + "txn_8,2026-01-31 12:00:00,eur,-2.00,0,fee,,,Radar\n",
        "stripe",
    )

    assert money(lines) == [
        (2, "paid", 123450, 345, "EUR"),
        (4, "refunded", 500, 0, "EUR"),
        (5, "refunded", -500, 0, "EUR"),
        (6, "paid", 500, 15, "JPY"),
        (7, "disputed", 900, 1500, "EUR"),
        (8, "payout", 100000, 0, "EUR"),
        (9, "payout", -100000, 0, "EUR"),
        (10, "fee", 200, 0, "EUR"),
    ]
    assert lines[0].row == "txn_1"
    assert lines[0].names == ["ch_1"]
    assert str(lines[0].at) == "2026-01-31 12:00:00+00:00"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1251"])
def test_a_statement_of_kaspi_in_every_encoding(encoding: str) -> None:
    text = (
        "Выписка;за январь\n\n"
        + KASPI
        + "123;31.01.2026 12:00:00;Покупка;1 234,50;12,3\n"
        + "124;31.01.2026 12:00;Возврат;-1,5;\n"
        + "Итого;;;1 233,00;\n"
    )
    lines, ignored = read(text.encode(encoding), "kaspi")

    assert money(lines) == [(4, "paid", 123450, 1230, "KZT"), (5, "refunded", 150, None, "KZT")]
    assert str(lines[0].at) == "2026-01-31 07:00:00+00:00"
    assert (len(lines), ignored) == (2, 1)


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("12.50", 1250), ("12,50", 1250), ("1.234,5", 123450), ("1,234.5", 123450), ("1\u00a0234,50", 123450),
        ("-3", 300), ("3-", 300), ("(3.00)", 300), ("\u22123", 300), ("1'000.00", 100000),
        ("1,234", None), ("12.345", None), ("1,23,4", None), ("", None), ("0x10", None), ("1e3", None), ("NaN", None),
        ("9" * 27, None), ("1." + "0" * 30 + "1", None),
    ],
)  # fmt: skip
def test_amounts_are_exact_or_refused(text: str, amount: int | None) -> None:
    [line], _ = read(f'id;amount;currency\nx;"{text}";EUR\n', "generic")

    assert (line.amount if line.problem is None else None) == amount


def test_a_bad_row_costs_no_other() -> None:
    rows = [
        'txn_1,2026-01-31,eur,1.00,0,charge,"ch_1,ch_1,',  # a quotation mark that nothing closes
        "txn_2,2026-01-31,eur,2.00,0,charge,ch_2,ch_2,",
        "txn_3,2026-01-31,eur,much,0,charge,ch_3,ch_3,",
        "txn_4,yesterday,eur,4.00,0,charge,ch_4,ch_4,",
        "txn_5,2026-01-31,euros,5.00,0,charge,ch_5,ch_5,",
        "txn_6,2026-01-31,eur,6.00,0,charge,,,",
        "txn_7,2026-01-31,eur",
        "txn_8,2026-01-31,eur,8.00,0,charge,ch_\0,ch_8,",
        "",
        "txn_9,2026-01-31,eur,9.00,0,charge,ch_9,ch_9,",
    ]
    lines, _ = read(STRIPE + "\n".join(rows), "stripe")

    assert [one.line for one in lines if one.problem is None] == [3, 11]
    assert [one.line for one in lines if one.problem is not None] == [2, 4, 5, 6, 7, 8, 9]


def test_a_mapping_changes_the_form() -> None:
    mapping = b"""
        unit = "minor"
        delimiter = "|"
        currency = "SYP"
        [columns]
        amount = "Betrag"
        names = ["Vorgang"]
        type = "Art"
        [types]
        Zahlung = "paid"
        Storno = "refunded"
        """
    lines, _ = read("Vorgang|Art|Betrag\na|Zahlung|100\nb|STORNO|-7\nc|Sonst|1\n", "generic", mapping)

    assert money(lines) == [
        (2, "paid", 100, None, "SYP"), (3, "refunded", 7, None, "SYP"), (4, "other", 1, None, "SYP")
    ]  # fmt: skip
    for wrong in (
        b"unit = 'dozens'",
        b"colour = 1",
        b"timezone = 'Mars'",
        b"encoding = 'x'",
        b"[",
        b"columns = 1",
    ):
        with pytest.raises(Refusal, match="mapping is not right"):
            changed(preset("generic"), wrong)


def test_a_file_without_the_columns_is_refused() -> None:
    for data in (b"", b"a,b\n1,2\n", b"\x00\x01\x02" * 100):
        with pytest.raises(Refusal):
            read(data, "stripe")


def test_the_simulators_report_tells_payments_and_refunds() -> None:
    lines, ignored = read(
        "id,attempt,reference,standing,amount,currency,refunded,fee,created_at,paid_at\n"
        "sim_1,01a22930-bac5-7480-925e-18318d9cd8c9,r,paid,100,EUR,30,3,2026-01-31,2026-01-31T12:00:00+00:00\n"
        "sim_2,01a22930-bac5-7480-925e-18318d9cd8c8,r,open,100,EUR,0,,2026-01-31,\n",
        "simulator",
    )

    assert money(lines) == [(2, "paid", 100, 3, "EUR"), (2, "refunded", 30, None, "EUR")]
    assert str(lines[0].own) == "01a22930-bac5-7480-925e-18318d9cd8c9"
    assert ignored == 1


def test_times_in_seconds_are_floored_to_the_microsecond() -> None:
    for text, micro in (
        ("1764464531.1234567", 123456),
        ("1764464531.9999999", 999999),
        ("1764464531123", 123000),
    ):
        found = reading._time(text, zone=ZoneInfo("UTC"), formats=())
        assert found is not None
        assert (found.second, found.microsecond) == (11, micro)

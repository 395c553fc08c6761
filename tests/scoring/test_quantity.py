from fractions import Fraction

import pytest

from evoquant.errors import InputError
from evoquant.scoring.quantity import amount_scale, amount_text, parse_amount


@pytest.mark.parametrize(
    "given, value, dimension",
    [
        ("20MB", 20_000_000, "size"),
        ("20 MB", 20_000_000, "size"),
        ("512KiB", 524_288, "size"),
        ("0.5GiB", 2**29, "size"),
        ("7B", 7, "size"),
        ("3ms", 3_000_000, "time"),
        ("250 µs", 250_000, "time"),
        ("250μs", 250_000, "time"),
        ("1.5s", 1_500_000_000, "time"),
        ("1.1ms", 1_100_000, "time"),
        ("30G", 30_000_000_000, ""),
        ("1e3", 1000, ""),
        (4, 4, ""),
        (4.5, Fraction(9, 2), ""),
    ],
)
def test_amounts_are_read_exactly(given, value, dimension):
    amount = parse_amount(given)
    assert (amount.value, amount.dimension) == (value, dimension)


@pytest.mark.parametrize(
    "given", ["", "MB", "20 XB", "-3", "0", "0MB", "nan", "inf", "1/2", "20MBs", "1e999", True, None, []]
)
def test_what_is_no_amount_is_refused(given):
    with pytest.raises(InputError):
        parse_amount(given)


def test_a_unit_in_other_letters_is_suggested():
    with pytest.raises(InputError, match="Did you mean 'MB'"):
        parse_amount("20Mb")


def test_an_amount_is_turned_into_what_a_table_counts():
    assert parse_amount("20MB").of("bytes") == 20_000_000
    assert parse_amount("1kB").of("bits") == 8 * 1024 * 1000  # a table of bits counts in 1/1024 bit
    assert parse_amount("16").of("bits") == 16 * 1024
    assert parse_amount("3ms").of("nanoseconds") == 3_000_000
    assert parse_amount("7").of("joules") == 7
    for text, unit in (("3ms", "bytes"), ("20MB", "nanoseconds"), ("3ms", "joules"), ("20MB", "")):
        with pytest.raises(InputError, match="give a plain number of that"):
            parse_amount(text).of(unit)


def test_amounts_read_well():
    assert amount_text(18_300_000, "bytes") == "18.3 MB"
    assert amount_text(8 * 1024 * 1000, "bits") == "1 kB"
    assert amount_text(2_400_000, "nanoseconds") == "2.4 ms"
    assert amount_text(12_345, "joules") == "12,345 joules"
    assert amount_text(4.0016, "") == "4.0016 bits per weight"
    assert amount_scale(2_400_000, "nanoseconds") == (1e6, "ms")
    assert amount_scale(5, "joules") == (1.0, "joules")

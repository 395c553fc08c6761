import pytest
from evoquant_example_plugin import Latency

from evoquant.errors import InputError
from evoquant.profiles.builtin import builtin_profile
from evoquant.quantization.precision import Menu
from evoquant.testing import check_cost

MENU = Menu.parse(["INT4", "FP32"])


def test_latency_keeps_the_protocol():
    check_cost(Latency())


def test_nanoseconds_are_those_of_the_table(tmp_path):
    table = tmp_path / "mine.csv"
    table.write_text("bits,ns_per_layer,ns_per_1000_weights\n4,100,7\n32,50,40\n")
    profile = builtin_profile("seed/test")
    cost = Latency(str(table))(profile, MENU, [(0,), (1, 2)])
    weights = [layer.parameters for layer in profile.layers]
    assert cost.table[0].tolist() == [100 + -(-weights[0] * 7 // 1000), 50 + -(-weights[0] * 40 // 1000)]
    assert cost.table[1, 1] == 100 + sum(-(-n * 40 // 1000) for n in weights[1:3])


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("bits,ns_per_layer\n32,50\n", "is no table of whole numbers with the columns"),
        ("bits,ns_per_layer,ns_per_1000_weights\n32,50,forty\n", "forty"),
        ("bits,ns_per_layer,ns_per_1000_weights\n4,100,7\n", "has no line for 32 bits"),
    ],
)
def test_a_table_that_cannot_be_used_is_named(tmp_path, text, fault):
    table = tmp_path / "mine.csv"
    table.write_text(text)
    with pytest.raises(InputError, match=fault) as caught:
        Latency(str(table))
    assert str(table) in str(caught.value)


def test_a_width_that_the_table_lacks_is_named():
    with pytest.raises(InputError, match="has no line for 3 bits"):
        Latency()(builtin_profile("seed/test"), Menu.parse(["INT3"]), [(0,)])


def test_a_file_that_is_not_there_is_named():
    with pytest.raises(InputError, match=r"nowhere\.csv"):
        Latency("nowhere.csv")

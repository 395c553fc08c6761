"""Widths are told apart, in colour and in grey."""

from itertools import pairwise

from evoquant.report.palette import SERIES, series_colour, width_colour


def lightness(colour):
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_wider_is_darker_and_every_usual_width_has_a_colour_of_its_own():
    colours = [width_colour(bits) for bits in (2, 3, 4, 6, 8, 16, 32)]
    assert len(set(colours)) == 7
    assert all(lightness(narrow) > lightness(wide) for narrow, wide in pairwise(colours))


def test_a_width_between_two_takes_the_wider_one_and_none_is_without():
    assert width_colour(5) == width_colour(6)
    assert width_colour(64) == width_colour(32)


def test_lines_repeat_their_colours():
    assert series_colour(len(SERIES)) == series_colour(0) != series_colour(1)

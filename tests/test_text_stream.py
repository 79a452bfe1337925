from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cerebras_gpt.generate.text_stream import TextStream


def feed(data: bytes, cuts: list[int], stop: list[str]) -> list[str]:
    stream, edges = TextStream(stop), [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    return [*(stream.push(data[a:b]) for a, b in pairwise(edges)), stream.close()]


@given(st.binary(max_size=40), st.lists(st.integers(0, 40)))
def test_pieces_join_to_the_decoded_whole(data, cuts):
    assert "".join(feed(data, cuts, [])) == data.decode("utf-8", errors="replace")


@given(st.text("ab€", max_size=20), st.lists(st.integers(0, 60)), st.lists(st.text("ab€", min_size=1, max_size=4)))
def test_text_ends_before_the_first_complete_stop_string_however_it_is_cut(text, cuts, stop):
    ends = [n for n in range(len(text) + 1) if any(text[:n].endswith(s) for s in stop)]
    expected = text[: min(ends[0] - len(s) for s in stop if text[: ends[0]].endswith(s))] if ends else text
    assert "".join(feed(text.encode(), cuts, stop)) == expected


@given(st.text("ab€", max_size=20), st.lists(st.text("ab€", min_size=1, max_size=4)))
def test_text_is_held_back_only_while_it_could_begin_a_stop_string(text, stop):
    stream, came = TextStream(stop), ""
    for n, character in enumerate(text, start=1):
        came += stream.push(character.encode())
        if stream.is_stopped:
            break
        held = text[len(came) : n]
        assert held == "" or any(s.startswith(held) for s in stop)


def test_a_split_character_comes_whole():
    pieces = feed("a🙂b".encode(), [1, 2, 3, 4, 5], [])
    assert pieces == ["a", "", "", "", "🙂", "b", ""]


def test_a_character_cut_at_the_very_end_is_replaced_once():
    assert "".join(feed("aé".encode()[:-1], [1], [])) == "a\ufffd"


def test_nothing_follows_a_stop_string():
    stream = TextStream(["."])
    assert stream.push("one. two\N{EURO SIGN}".encode()[:-1]) == "one"
    assert stream.push(b"three") == ""
    assert stream.close() == ""


def test_a_lone_string_is_refused_as_a_list_of_stops():
    with pytest.raises(ValueError, match="give a list of strings"):
        TextStream("\n\n")


def test_an_empty_stop_string_is_refused():
    with pytest.raises(ValueError, match="empty"):
        TextStream(["a", ""])

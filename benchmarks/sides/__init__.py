"""Peers of decode.py and ours, a file each: `side(kind, folder)` gives what runs there, in that peer's own interpreter.

What runs takes a number of sequences, of prompt tokens and of new ones, and gives the seconds to the first new token,
the tokens that came after it, and their seconds.
"""

PROMPT, NEW, LONG = 128, 64, 1024


def ids_of(n, seed):
    return [(seed * 7919 + i * 104729) % 50000 for i in range(n)]

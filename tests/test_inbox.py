import asyncio
import math
import random
import threading
from collections import Counter

import pytest

from cerebras_gpt.generate.answer import Piece
from cerebras_gpt.generate.request import Choice, Request
from cerebras_gpt.serve.inbox import Bell, Inbox, together
from cerebras_gpt.serve.worker import Job


def job():
    return Job(Request((1,), 5), (), lambda job, piece: None, math.inf)


async def read_all(inbox, jobs):
    """The text of each job and the number of looks; ends with the last piece of each."""
    texts, looks, open_jobs = dict.fromkeys(jobs, ""), 0, set(jobs)
    while open_jobs:
        found = await inbox.take()
        looks += 1
        for one, piece in together(found):
            texts[one] += piece.text
            open_jobs -= {one} if piece.reason else set()
    return texts, looks


@pytest.mark.parametrize("pace", [0.0, 0.003, math.inf])
def test_nothing_is_lost_or_changes_its_order_on_the_way(pace):
    jobs = [job() for _ in range(3)]
    sent = [(one, f"{n} ") for n in range(2000) for one in jobs]

    def send(inbox):
        draw, left = random.Random(0), Counter(one for one, _ in sent)
        for one, text in sent:
            left[one] -= 1
            inbox.put(one, Piece(text, [Choice(1)], None if left[one] else "stop"))
            if draw.random() < 0.002:
                threading.Event().wait(0.004)

    async def run():
        inbox = Inbox(asyncio.get_running_loop(), lambda: pace)
        thread = threading.Thread(target=send, args=[inbox])
        thread.start()
        found = await asyncio.wait_for(read_all(inbox, jobs), 30)
        thread.join()
        return found

    texts, _ = asyncio.run(run())
    assert texts == {one: "".join(text for owner, text in sent if owner is one) for one in jobs}


def test_what_comes_during_the_rest_comes_together_and_a_last_piece_at_once():
    async def run():
        inbox, one = Inbox(asyncio.get_running_loop(), lambda: 3600), job()
        inbox.put(one, Piece("a", [Choice(1)]))
        first = await inbox.take()
        inbox.put(one, Piece("b", [Choice(2)]))
        inbox.put(one, Piece("c", [Choice(3)], "stop"))
        return first, together(await asyncio.wait_for(inbox.take(), 10))

    first, second = asyncio.run(run())
    assert [piece for _, piece in first] == [Piece("a", [Choice(1)])]
    assert [piece for _, piece in second] == [Piece("bc", [Choice(2), Choice(3)], "stop")]


def test_an_answer_in_one_piece_is_looked_at_once():
    async def run():
        inbox, one = Inbox(asyncio.get_running_loop(), lambda: math.inf), job()
        for n in range(50):
            inbox.put(one, Piece(str(n), [], None if n < 49 else "length"))
            await asyncio.sleep(0)
        return await asyncio.wait_for(read_all(inbox, [one]), 10)

    assert asyncio.run(run())[1] == 1


def test_a_loop_is_woken_once_for_all_that_came_before_it_looks():
    async def run():
        loop = asyncio.get_running_loop()
        woken, wake, events = [], loop.call_soon_threadsafe, [asyncio.Event() for _ in range(50)]
        loop.call_soon_threadsafe = lambda *call: (woken.append(1), wake(*call))
        for event in events:
            Bell.of(loop).ring(event)
        await asyncio.wait_for(asyncio.gather(*(event.wait() for event in events)), 10)
        return len(woken), Bell.of(loop) is Bell.of(loop)

    assert asyncio.run(run()) == (1, True)

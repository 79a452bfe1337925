"""S4: ten times as many requests as can be answered; the rest is refused at once with a time to come back."""

import asyncio
import gc
import time

from benchmarks.serving_faults.asking import Client, completion, drawn, request, share
from benchmarks.serving_faults.target import Target

SECONDS, TIMES = 60, 10
REFUSAL_SECONDS, HEALTH_SECONDS = 0.05, 0.1
WARMING_SECONDS = 3.0
MEMORY_BYTES = 64 << 20


class Pool:
    """Connections that are kept: each request takes a free one or opens another."""

    def __init__(self, port):
        self.port, self.free = port, []

    async def ask(self, data):
        """Status, headers in small letters, content, seconds."""
        started = time.perf_counter()
        while True:
            fresh = not self.free
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port) if fresh else self.free.pop()
            try:
                writer.write(data)
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
                break
            except (asyncio.IncompleteReadError, ConnectionError):  # the server had closed it meanwhile
                writer.close()
                if fresh:
                    raise
        length = head.partition("content-length: ")[2].partition("\r\n")[0]
        content = await reader.readexactly(int(length))
        self.free.append((reader, writer))
        return int(head.split()[1]), head, content, time.perf_counter() - started


def rate(port, seed):
    """Requests per second that 24 clients get answered, all slots and the queue full."""
    done = []

    async def one(pool, number, ends):
        draw = drawn(seed, number)
        while time.perf_counter() < ends:
            status, *_ = await pool.ask(request(completion(draw, max_tokens=60)))
            done.append(status)

    async def all_of_them():
        pool, ends = Pool(port), time.perf_counter() + WARMING_SECONDS
        await asyncio.gather(*(one(pool, number, ends) for number in range(24)))

    asyncio.run(all_of_them())
    return done.count(200) / WARMING_SECONDS


async def flood(port, seed, seconds, per_second):
    """Requests at a fixed pace, however slowly they are answered; /health ten times a second beside them."""
    pool, ends = Pool(port), time.perf_counter() + seconds
    told, health, tasks = [], [], set()

    async def one(data, into):
        try:
            into.append(await pool.ask(data))
        except (OSError, asyncio.IncompleteReadError) as error:
            into.append((0, "", repr(error).encode(), 0.0))

    async def paced(interval, made, into):
        began, number = time.perf_counter(), 0
        while time.perf_counter() < ends:
            number += 1
            tasks.add(task := asyncio.create_task(one(made(number), into)))
            task.add_done_callback(tasks.discard)
            await asyncio.sleep(max(0.0, began + number * interval - time.perf_counter()))

    await asyncio.gather(
        paced(1 / per_second, lambda number: request(completion(drawn(seed, number), max_tokens=60)), told),
        paced(0.1, lambda _: b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", health),
    )
    await asyncio.gather(*tasks)
    return told, health


def campaign(report, folder, seed, numbers):
    """One flood, as many seconds long as there are numbers."""
    with Target(folder) as target:
        client = Client(target.port).waited()
        served = rate(target.port, seed)
        before = target.memory
        gc.disable()  # a look at all that was told so far would count as the server's delay
        told, health = asyncio.run(flood(target.port, seed, len(numbers), TIMES * served))
        gc.enable()
        growth = target.memory - before
        for number, (status, head, content, _) in enumerate(told):
            fine = status == 200 or (status == 429 and "retry-after" in head and b"queue_full" in content)
            report.case(number, [] if fine else [f"{status}: {content[:200]!r}"])
        for number, (status, _, content, _) in enumerate(health):
            report.case(f"health {number}", [] if status == 200 else [f"{status} {content[:200]!r}"])
        report.case("conservation", client.conserved())
        report.case("end", target.end())
    by_status = {status: [one[3] for one in told if one[0] == status] for status in (200, 429)}
    figures = {
        "answered per second before": round(served, 1),
        "asked per second": round(len(told) / len(numbers), 1),
        "answered": len(by_status[200]),
        "refused": len(by_status[429]),
        "answer p50, p99 seconds": [share(by_status[200], part) for part in (0.5, 0.99)],
        "refusal p50, p99 seconds": [share(by_status[429], part) for part in (0.5, 0.99)],
        "health p50, p99 seconds": [share([one[3] for one in health], part) for part in (0.5, 0.99)],
        "bytes grown": growth,
    }
    report.figures |= figures
    report.case("memory bounded", [] if growth < MEMORY_BYTES else [f"{growth} bytes grown"])
    for name, most in (("refusal", REFUSAL_SECONDS), ("health", HEALTH_SECONDS)):
        found = figures[f"{name} p50, p99 seconds"][1]
        report.case(f"{name} in time", [] if found is None or found <= most else [f"p99 {found} s, more than {most}"])

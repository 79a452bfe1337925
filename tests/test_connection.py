import asyncio

from cerebras_gpt.serve.connection import Joined


class Transport:
    """What is written to it, and whether it was closed."""

    def __init__(self):
        self.sent, self.is_closed = [], False

    def write(self, data):
        assert not self.is_closed
        self.sent.append(data)

    def close(self):
        self.is_closed = True

    def get_extra_info(self, name):
        return name


def test_what_is_written_in_one_turn_of_the_loop_is_sent_together():
    async def turns():
        plain = Transport()
        joined = Joined(plain, asyncio.get_running_loop())
        joined.write(b"head")
        joined.write(b"body")
        assert plain.sent == []
        await asyncio.sleep(0)
        joined.write(b"next")
        await asyncio.sleep(0)
        assert plain.sent == [b"headbody", b"next"]
        assert joined.get_extra_info("peername") == "peername"

    asyncio.run(turns())


def test_what_was_written_is_sent_before_the_end():
    async def turns():
        plain = Transport()
        joined = Joined(plain, asyncio.get_running_loop())
        joined.write(b"last")
        joined.close()
        await asyncio.sleep(0)
        assert (plain.sent, plain.is_closed) == ([b"last"], True)

    asyncio.run(turns())

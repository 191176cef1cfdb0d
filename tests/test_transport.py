"""The embedded broker: whole messages under load, in order, and each queue its own."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from kombu import Connection
from kombu.exceptions import OperationalError

from config import transport

PAYLOAD = "x" * 200_000


@pytest.fixture
def connect(tmp_path):
    """Each test names its own queues: kombu binds a queue once in a process, whatever the folder."""
    options = transport.options(tmp_path / "queue")
    return lambda: Connection("folder://localhost//", transport_options=options)


def take_all(connection, received, until):
    queue = connection.SimpleQueue("stages")
    while time.monotonic() < until and len(received) < 200:
        try:
            message = queue.get(block=False)
        except (queue.Empty, OperationalError):
            time.sleep(0.001)
            continue
        received.append(message.payload)
        message.ack()


def test_concurrent_producers_and_a_consumer_lose_double_and_tear_nothing(connect):
    with connect() as connection:
        connection.SimpleQueue("stages")  # bound once, as a worker does when it starts
    received: list = []
    until = time.monotonic() + 60

    def produce(start):
        with connect() as connection:
            queue = connection.SimpleQueue("stages")
            for number in range(start, start + 50):
                queue.put({"number": number, "text": PAYLOAD})

    def consume():
        with connect() as connection:
            take_all(connection, received, until)

    with ThreadPoolExecutor(5) as threads:
        running = [threads.submit(produce, 50 * i) for i in range(4)]
        running.append(threads.submit(consume))
        for future in running:
            future.result()
    assert sorted(row["number"] for row in received) == list(range(200))
    assert all(row["text"] == PAYLOAD for row in received)


def test_messages_come_in_the_order_in_which_they_were_sent(connect):
    with connect() as connection:
        queue = connection.SimpleQueue("ordered")
        for number in range(20):
            queue.put(number)
        assert [queue.get(block=False).payload for _ in range(20)] == list(range(20))


def test_one_queue_does_not_see_the_messages_of_another(connect):
    with connect() as connection:
        connection.SimpleQueue("first_of_two").put("for the gpu")
        other = connection.SimpleQueue("second_of_two")
        with pytest.raises(other.Empty):
            other.get(block=False)
        assert connection.SimpleQueue("first_of_two").get(block=False).payload == "for the gpu"


def test_a_message_that_is_still_being_written_is_not_read(connect, tmp_path):
    folder = tmp_path / "queue" / "messages"
    with connect() as connection:
        queue = connection.SimpleQueue("unfinished")
        (folder / ".00000000000000000001_half.unfinished.msg.new").write_text('{"half')
        with pytest.raises(queue.Empty):
            queue.get(block=False)

"""The embedded broker: whole messages under load, in order, and nothing lost when it is emptied."""

import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from kombu import Connection, Exchange, Queue
from kombu.exceptions import OperationalError

from config import transport

PAYLOAD = "x" * 200_000


@pytest.fixture
def connect(tmp_path):
    options = transport.options(tmp_path / "queue")
    return lambda: Connection("folder://localhost//", transport_options=options)


def take_all(connection, found, until):
    queue = connection.SimpleQueue("stages")
    while time.monotonic() < until and len(found) < 200:
        try:
            message = queue.get(block=False)
        except (queue.Empty, OperationalError):
            time.sleep(0.001)
            continue
        found.append(message.payload)
        message.ack()


def test_concurrent_producers_and_consumers_lose_double_and_tear_nothing(connect):
    found: list = []
    until = time.monotonic() + 60

    def produce(start):
        with connect() as connection:
            queue = connection.SimpleQueue("stages")
            for number in range(start, start + 50):
                queue.put({"number": number, "text": PAYLOAD})

    def consume():
        with connect() as connection:
            take_all(connection, found, until)

    with ThreadPoolExecutor(7) as people:
        busy = [people.submit(produce, 50 * i) for i in range(4)]
        busy += [people.submit(consume) for _ in range(3)]
        for one in busy:
            one.result()
    assert sorted(row["number"] for row in found) == list(range(200))
    assert all(row["text"] == PAYLOAD for row in found)


def test_many_who_begin_at_the_same_moment_all_keep_their_route(tmp_path):
    """kombu empties the table of routes before it locks it: who comes then dies or is forgotten."""
    for number in range(20):
        options = transport.options(tmp_path / str(number))
        start = threading.Barrier(6)

        def begin(name, options=options, start=start):
            with Connection("folder://localhost//", transport_options=options) as connection:
                start.wait()
                queue = Queue(name, Exchange("work"), routing_key=name)
                queue(connection.default_channel).declare()

        with ThreadPoolExecutor(6) as people:
            for done in [people.submit(begin, name) for name in "abcdef"]:
                done.result()
        with Connection("folder://localhost//", transport_options=options) as connection:
            routes = connection.default_channel.get_table("work")
        assert sorted(route[2] for route in routes) == list("abcdef")


def test_a_table_cut_off_by_a_crash_is_written_anew(connect, tmp_path):
    (tmp_path / "queue" / "control" / "stages.exchange").write_text("")
    with connect() as connection:
        queue = connection.SimpleQueue("stages")
        queue.put("still comes")
        assert queue.get(block=False).payload == "still comes"


def test_messages_come_in_the_order_in_which_they_were_sent(connect):
    with connect() as connection:
        queue = connection.SimpleQueue("stages")
        for number in range(20):
            queue.put(number)
        assert [queue.get(block=False).payload for _ in range(20)] == list(range(20))


def test_one_queue_does_not_see_the_messages_of_another(connect):
    with connect() as connection:
        connection.SimpleQueue("gpu").put("for the gpu")
        other = connection.SimpleQueue("default")
        with pytest.raises(other.Empty):
            other.get(block=False)
        assert connection.SimpleQueue("gpu").get(block=False).payload == "for the gpu"


def test_a_message_that_is_still_being_written_is_not_read(connect, tmp_path):
    folder = tmp_path / "queue" / "messages"
    with connect() as connection:
        queue = connection.SimpleQueue("stages")
        (folder / ".00000000000000000001_half.stages.msg.new").write_text('{"half')
        with pytest.raises(queue.Empty):
            queue.get(block=False)


def test_names_sort_by_age_also_over_a_reboot(connect, tmp_path, monkeypatch):
    with connect() as connection:
        queue = connection.SimpleQueue("stages")
        queue.put("first")
        monkeypatch.setattr(time, "monotonic", lambda: 1.0)
        queue.put("second")
        names = [p.name for p in transport.messages(tmp_path / "queue" / "messages", "stages")]
        assert names == sorted(names)
        assert len({len(name.split("_")[0]) for name in names}) == 1


def test_a_queue_folder_that_somebody_deletes_is_made_again(connect, tmp_path):
    with connect() as connection:
        queue = connection.SimpleQueue("stages")
        queue.put("lost")
        shutil.rmtree(tmp_path / "queue")
        queue.put("found")
        assert queue.get(block=False).payload == "found"

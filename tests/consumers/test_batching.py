"""Which files form a batch, and how far offsets may move."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumers.batching import Gatherer
from contracts.errors import BadWork
from contracts.states import Layer
from contracts.work import WorkItem, WorkMessage
from tests.consumers.samples import NOON

TOPIC = "lake.bronze.work"


def item(key: str, version: str = "1") -> WorkItem:
    return WorkItem(bucket="bronze", key=key, etag=f"e{version}", version=version)


def work(*items: WorkItem, dataset: str = "d", layer: Layer = Layer.SILVER) -> WorkMessage:
    return WorkMessage(layer=layer, dataset=dataset, items=items, at=NOON)


def test_one_file_makes_a_batch_at_once() -> None:
    gatherer = Gatherer(Layer.SILVER)
    gatherer.add(work(item("a")), TOPIC, 0, 7)
    (batch,) = gatherer.next_batches(busy=())
    assert batch.items == (item("a"),)
    assert gatherer.committable() == {(TOPIC, 0): 7}
    gatherer.handed_over(batch)
    assert gatherer.committable() == {(TOPIC, 0): 8}
    assert gatherer.next_batches(busy=()) == []


def test_files_of_a_busy_dataset_gather_into_one_batch() -> None:
    gatherer = Gatherer(Layer.SILVER)
    for offset in range(20):
        gatherer.add(work(item(f"k{offset}")), TOPIC, 0, offset)
    gatherer.add(work(item("x"), dataset="other"), TOPIC, 1, 0)
    assert [batch.dataset for batch in gatherer.next_batches(busy={"d"})] == ["other"]
    assert [len(batch.items) for batch in gatherer.next_batches(busy={"other"})] == [20]


def test_batch_takes_at_most_its_limit_and_the_rest_waits() -> None:
    gatherer = Gatherer(Layer.SILVER)
    gatherer.add(work(*(item(f"k{n}") for n in range(5))), TOPIC, 0, 0)
    (batch,) = gatherer.next_batches(busy=(), limits={"d": 3})
    gatherer.handed_over(batch)
    assert gatherer.waiting == 2
    assert gatherer.committable() == {(TOPIC, 0): 0}


def test_newer_version_replaces_the_older_one_and_both_are_handed_over() -> None:
    gatherer = Gatherer(Layer.SILVER)
    gatherer.add(work(item("a", "1")), TOPIC, 0, 0)
    gatherer.add(work(item("a", "2")), TOPIC, 0, 1)
    (batch,) = gatherer.next_batches(busy=())
    assert batch.items == (item("a", "2"),)
    gatherer.handed_over(batch)
    assert gatherer.committable() == {(TOPIC, 0): 2}


def test_version_that_came_after_the_batch_was_made_keeps_waiting() -> None:
    gatherer = Gatherer(Layer.SILVER)
    gatherer.add(work(item("a", "1")), TOPIC, 0, 0)
    (batch,) = gatherer.next_batches(busy=())
    gatherer.add(work(item("a", "2")), TOPIC, 0, 1)
    gatherer.handed_over(batch)
    assert [b.items for b in gatherer.next_batches(busy=())] == [(item("a", "2"),)]
    assert gatherer.committable() == {(TOPIC, 0): 1}


def test_message_sent_twice_makes_one_item_and_both_offsets_wait_for_it() -> None:
    gatherer = Gatherer(Layer.SILVER)
    gatherer.add(work(item("a")), TOPIC, 0, 0)
    gatherer.add(work(item("a")), TOPIC, 0, 1)
    (batch,) = gatherer.next_batches(busy=())
    assert len(batch.items) == 1
    assert gatherer.committable() == {(TOPIC, 0): 0}
    gatherer.handed_over(batch)
    assert gatherer.committable() == {(TOPIC, 0): 2}


def test_message_whose_items_are_all_claimed_holds_no_offset_back() -> None:
    gatherer = Gatherer(Layer.SILVER)
    gatherer.add(work(item("a"), item("b")), TOPIC, 0, 0, skip=[item("a"), item("b")])
    assert gatherer.waiting == 0
    assert gatherer.committable() == {(TOPIC, 0): 1}


def test_work_for_another_layer_is_bad_work() -> None:
    gatherer = Gatherer(Layer.SILVER)
    with pytest.raises(BadWork, match="expected silver"):
        gatherer.add(work(item("a"), layer=Layer.GOLD), TOPIC, 0, 3)
    gatherer.pass_over(TOPIC, 0, 3)
    assert gatherer.committable() == {(TOPIC, 0): 4}


def test_gatherer_says_of_which_dataset_too_many_files_wait_and_where_they_came_from() -> None:
    gatherer = Gatherer(Layer.SILVER, max_waiting=2)
    gatherer.add(work(item("a")), TOPIC, 0, 0)
    gatherer.add(work(item("a"), dataset="other"), TOPIC, 1, 0)
    assert gatherer.crowded == {}
    gatherer.add(work(item("b")), TOPIC, 0, 1)
    (crowded,) = gatherer.crowded
    assert gatherer.crowded == {crowded: 2}
    assert gatherer.partitions_of([crowded]) == {0}
    assert gatherer.partitions_of([]) == set()


KEYS = st.sampled_from(["a", "b", "c"])
MESSAGES = st.lists(
    st.tuples(
        st.sampled_from(["d1", "d2"]),
        st.lists(st.tuples(KEYS, st.sampled_from("12")), min_size=1, max_size=4),
        st.integers(0, 1),
        st.booleans(),
    ),
    max_size=12,
)


@given(messages=MESSAGES, limit=st.integers(1, 3))
def test_no_message_is_forgotten_and_no_offset_passes_one_that_waits(
    messages: list[tuple[str, list[tuple[str, str]], int, bool]], limit: int
) -> None:
    gatherer = Gatherer(Layer.SILVER)
    waiting: dict[tuple[str, str, str], tuple[int, set[tuple[int, int]]]] = {}
    """(dataset, key, version) -> when it came, and the (partition, offset) of its messages."""
    next_offset = {0: 0, 1: 0}

    def hand_over(busy: set[str]) -> None:
        for batch in gatherer.next_batches(busy, {"d1": limit, "d2": limit}):
            gatherer.handed_over(batch)
            for taken in batch.items:
                came, _ = waiting[batch.dataset, taken.key, taken.version]
                for name in [name for name in waiting if name[:2] == (batch.dataset, taken.key)]:
                    if waiting[name][0] <= came:
                        del waiting[name]

    def check() -> None:
        held = {place for _, places in waiting.values() for place in places}
        first = {p: min([o for q, o in held if q == p], default=end) for p, end in next_offset.items()}
        assert gatherer.committable() == {(TOPIC, p): first[p] for p, end in next_offset.items() if end}
        assert gatherer.waiting == len(waiting)

    for count, (dataset, keys, partition, deliver) in enumerate(messages):
        place = (partition, next_offset[partition])
        next_offset[partition] += 1
        gatherer.add(work(*(item(*key) for key in keys), dataset=dataset), TOPIC, *place)
        for position, key in enumerate(keys):
            waiting.setdefault((dataset, *key), (10 * count + position, set()))[1].add(place)
        if deliver:
            hand_over({"d2"})
        check()
    while gatherer.waiting:
        before = gatherer.waiting
        hand_over(set())
        check()
        assert gatherer.waiting < before

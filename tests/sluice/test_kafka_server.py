"""The Kafka server as the product prepares it."""

from sluice.kafka_server import new_cluster_id


def test_id_of_a_cluster_never_begins_like_an_option():
    ids = {new_cluster_id() for _ in range(2_000)}  # one in 64 random ones would begin with "-"
    assert len(ids) == 2_000
    assert all(len(cluster_id) == 22 and not cluster_id.startswith("-") for cluster_id in ids)

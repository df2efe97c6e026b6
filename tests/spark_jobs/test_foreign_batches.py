"""What a job is handed that nobody of ours would hand it. No server: the job must not get as far as one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from contracts.dataset import DatasetContract
from contracts.errors import BadWork
from contracts.markers import CommitMarker
from contracts.states import Layer
from contracts.work import WorkItem, make_batch
from spark_jobs import data_preprocessing_job, feature_engineering_job

JOBS = [
    pytest.param(Layer.SILVER, data_preprocessing_job.run, id="silver"),
    pytest.param(Layer.GOLD, feature_engineering_job.run, id="gold"),
]
Run = Callable[..., CommitMarker]


class Untouchable:
    """Fails whoever asks it for anything."""

    def __getattr__(self, name: str) -> Any:
        pytest.fail(f"the job asked for {name} before it looked at its batch")


@pytest.mark.parametrize(("layer", "run"), JOBS)
@pytest.mark.parametrize(
    ("bucket", "key"),
    [
        pytest.param("bronze", "taxi_zones/a.parquet", id="another-dataset"),
        pytest.param("bronze", "nyc_yellow/../taxi_zones/a.parquet", id="path-that-climbs"),
        pytest.param("bronze", "nyc_yellow/%2e%2e/taxi_zones/a.parquet", id="encoded-path-that-climbs"),
        pytest.param("quarantine", "nyc_yellow/a.parquet", id="quarantine"),
        pytest.param("silver", "nyc_yellow/data/a.parquet", id="table's-data-file"),
    ],
)
def test_job_reads_nothing_of_a_batch_that_names_a_file_outside_its_dataset_s_folder(
    contract: DatasetContract, layer: Layer, run: Run, bucket: str, key: str
) -> None:
    own = WorkItem(bucket="bronze", key="nyc_yellow/b.parquet", etag="e", version="1")
    foreign = WorkItem(bucket=bucket, key=key, etag="e", version="1")
    with pytest.raises(BadWork, match="alone"):
        run(Untouchable(), Untouchable(), Untouchable(), contract, make_batch(layer, "nyc_yellow", [own, foreign]))


@pytest.mark.parametrize(("layer", "run"), JOBS)
def test_job_takes_no_batch_of_another_dataset(contract: DatasetContract, layer: Layer, run: Run) -> None:
    item = WorkItem(bucket="bronze", key="nyc_green/b.parquet", etag="e", version="1")
    with pytest.raises(BadWork, match="nyc_green_to_"):
        run(Untouchable(), Untouchable(), Untouchable(), contract, make_batch(layer, "nyc_green", [item]))

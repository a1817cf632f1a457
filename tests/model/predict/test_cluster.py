"""Forecasts on Dask, Ray and Spark are those of this process, to the last digit."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest

from freshet.model.predict import windows
from freshet.model.predict.cluster import Cluster, here, spread_out
from freshet.model.predict.frame import Forecaster
from freshet.stream.errors import InvalidInputError

DAYS = 40


@pytest.fixture
def forecaster(tiny_network) -> Forecaster:
    return Forecaster(tiny_network, device="cpu", dtype="float32")


@pytest.fixture(autouse=True)
def _small_portions(monkeypatch) -> None:
    # Three portions of the table below.
    monkeypatch.setattr(windows, "SENT_ROWS", 32)


def table() -> pd.DataFrame:
    """Seventy items, some of which are young, with a promotion that all answer to."""
    rng = np.random.default_rng(9)
    day = pd.date_range("2024-03-01", periods=DAYS)
    promo = (np.arange(DAYS) % 9 < 2).astype(float)
    parts = []
    for item in range(70):
        sold = rng.poisson((4 + item) * (1 + promo)).astype(float)
        columns = {"item_id": f"i{item:02}", "timestamp": day, "target": sold, "promo": promo}
        parts.append(pd.DataFrame(columns | {"store": f"s{item % 2}"})[item % 11 :])
    return pd.concat(parts, ignore_index=True)


def same(found: Any, expected: pd.DataFrame) -> None:
    """Whether two answers are one, whatever library holds them and in whichever order."""
    frame = here(found).sort_values(["item_id", "timestamp"], ignore_index=True)
    assert list(frame.columns) == list(expected.columns)
    for name in expected.columns:
        if expected[name].dtype == float:
            np.testing.assert_array_equal(
                frame[name].to_numpy(np.float32), expected[name].to_numpy(np.float32)
            )
        else:
            assert frame[name].tolist() == expected[name].tolist()


def test_fugues_own_engine_gives_the_same_and_does_the_work(forecaster, monkeypatch) -> None:
    from fugue import NativeExecutionEngine

    sizes = []
    portion = windows._portion

    def counted(own: Any, shared: Any, levels: Any, window: Any) -> Any:
        sizes.append(len(window))
        return portion(own, shared, levels, window)

    expected = forecaster.predict(table(), 5, known=["promo"])
    monkeypatch.setattr(windows, "_portion", counted)
    found = forecaster.predict(table(), 5, known=["promo"], engine=NativeExecutionEngine())
    pd.testing.assert_frame_equal(found, expected)
    assert sizes == [32, 32, 6]


def test_earlier_cutoffs_and_levels_go_there_too(forecaster) -> None:
    from fugue import NativeExecutionEngine

    engine = NativeExecutionEngine()
    some = table()[lambda frame: frame.item_id < "i07"]
    for call, words in (
        (forecaster.cross_validation, {"n_windows": 2}),
        (forecaster.predict, {"levels": ["store"]}),
    ):
        pd.testing.assert_frame_equal(
            call(some, 10, engine=engine, **words), call(some, 10, **words)
        )


def test_an_engine_that_is_none_is_named() -> None:
    with pytest.raises(InvalidInputError, match="there is no engine 'sparc'"):
        Cluster("sparc")


def test_a_plain_frame_goes_nowhere() -> None:
    assert Cluster.of(None, table()) is None
    assert not spread_out(table())


@pytest.fixture(scope="module")
def dask() -> Iterator[Any]:
    distributed = pytest.importorskip("distributed", reason="freshet[dask] is not installed")
    local = distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None)
    with local, distributed.Client(local) as client:
        yield client


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_two_processes_of_dask_give_the_same(forecaster, dask) -> None:
    import dask.dataframe as dd

    expected = forecaster.predict(table(), 5, known=["promo"])
    same(forecaster.predict(table(), 5, known=["promo"], engine=dask), expected)
    spread = dd.from_pandas(table(), npartitions=3)
    found = forecaster.predict(spread, 5, known=["promo"])
    assert isinstance(found, dd.DataFrame)
    same(found, expected)


@pytest.fixture(scope="module")
def spark() -> Iterator[Any]:
    sql = pytest.importorskip("pyspark.sql", reason="freshet[spark] is not installed")
    if shutil.which("java") is None:
        pytest.skip("Spark needs Java")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPARK_LOCAL_IP", "127.0.0.1")
        builder = sql.SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false")
        session = builder.config("spark.sql.shuffle.partitions", "2").getOrCreate()
        yield session
        session.stop()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_two_threads_of_spark_give_the_same(forecaster, spark) -> None:
    expected = forecaster.predict(table(), 5, known=["promo"])
    same(forecaster.predict(table(), 5, known=["promo"], engine=spark), expected)
    found = forecaster.predict(spark.createDataFrame(table()), 5, known=["promo"])
    assert type(found).__module__.startswith("pyspark")
    same(found, expected)


@pytest.fixture(scope="module")
def ray() -> Iterator[Any]:
    library = pytest.importorskip("ray", reason="freshet[ray] is not installed")
    library.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield library
    library.shutdown()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_two_processes_of_ray_give_the_same(forecaster, ray) -> None:
    expected = forecaster.predict(table(), 5, known=["promo"])
    same(forecaster.predict(table(), 5, known=["promo"], engine="ray"), expected)
    # One portion alone.
    few = table()[lambda frame: frame.item_id < "i07"]
    same(forecaster.predict(few, 5, engine="ray"), forecaster.predict(few, 5))
    found = forecaster.predict(ray.data.from_pandas(table()), 5, known=["promo"])
    assert type(found).__module__.startswith("ray.")
    same(found, expected)

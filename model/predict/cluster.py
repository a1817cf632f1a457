"""Work in portions on Dask, Ray or Spark, by fugue: what each portion gives is as on one machine.

Whoever asks reads the whole table, and learns what all series do alike; portions of series go out
with that, and their forecasts come back.
"""

from __future__ import annotations

import base64
import pickle
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from freshet.stream.errors import InvalidInputError

if TYPE_CHECKING:
    import pandas as pd

# Where frames come from, that are spread over a cluster.
LIBRARIES = ("dask", "pyspark", "ray")
Given = TypeVar("Given")
Made = TypeVar("Made")
ENGINES = ("dask", "ray", "spark")


class Cluster:
    """Runs functions of ours on an engine that fugue knows.

    Args:
        engine: "dask", "ray" or "spark", a Dask client, a Spark session, or an engine of fugue.

    Raises:
        InvalidInputError: there is no such engine, or its library is not installed.
    """

    def __init__(self, engine: Any) -> None:
        self._engine = _engine_of(engine)

    @classmethod
    def of(cls, engine: Any, df: Any) -> Cluster | None:
        """The engine asked for, else that of a frame which is spread over one; None: neither."""
        if engine is None and not spread_out(df):
            return None
        return cls(df if engine is None else engine)

    def map(self, function: Callable[[Given], Made], portions: Sequence[Given]) -> list[Made]:
        """What the function gives for each portion, in their order; blocks until all is there."""
        import pandas as pd
        from fugue.dataframe.api import as_pandas
        from fugue.workflow.api import transform

        def work(rows: Iterable[dict[str, Any]]) -> Iterable[dict[str, Any]]:
            for row in rows:
                made = function(_unpacked(row["sent"]))
                yield {"place": row["place"], "made": _packed(made)}

        sent = [_packed(portion) for portion in portions]
        found = transform(
            pd.DataFrame({"place": range(len(sent)), "sent": sent}),
            work,
            schema="place:long,made:str",
            # A part without a row has columns of no type, which Ray does not take.
            partition={"by": "place", "num": len(sent)},
            engine=self._engine,
            as_local=True,
        )
        frame = as_pandas(found).sort_values("place")
        return [_unpacked(made) for made in frame["made"]]


def spread_out(df: Any) -> bool:
    """Whether a frame is one of Dask, Ray or Spark."""
    return type(df).__module__.split(".")[0] in LIBRARIES


def here(df: Any) -> Any:
    """A frame that is spread over a cluster as a pandas frame; others as they are."""
    if not spread_out(df):
        return df
    if hasattr(df, "toPandas"):
        # Spark's own way, since names such as "0.1" are paths to others.
        return df.toPandas()
    from fugue.dataframe.api import as_pandas

    return as_pandas(df)


def spread_like(frame: pd.DataFrame, df: Any) -> Any:
    """A frame of ours spread over the same cluster as another."""
    library = type(df).__module__.split(".")[0]
    if library == "pyspark":
        return df.sparkSession.createDataFrame(frame)
    if library == "dask":
        from dask.dataframe import from_pandas

        return from_pandas(frame, npartitions=df.npartitions)
    from ray.data import from_pandas as of_ray

    return of_ray(frame)


def _packed(value: Any) -> str:
    """As text, since Dask takes bytes for text."""
    return base64.b64encode(pickle.dumps(value)).decode("ascii")


def _unpacked(text: str) -> Any:
    return pickle.loads(base64.b64decode(text))


def _engine_of(engine: Any) -> Any:
    if isinstance(engine, str) and engine not in ENGINES:
        raise InvalidInputError(f"there is no engine {engine!r}", hint=f"say {', '.join(ENGINES)}")
    try:
        from fugue.execution.factory import make_execution_engine

        if spread_out(engine) and not _runs(engine):
            return make_execution_engine(None, infer_by=[engine])
        return make_execution_engine(engine)
    except ImportError as error:
        raise InvalidInputError(
            f"the engine {engine!r} needs a library that is not installed: {error.name}",
            hint="pip install 'freshet[dask]', 'freshet[ray]' or 'freshet[spark]'",
        ) from None


def _runs(engine: Any) -> bool:
    """Whether it is a client or session rather than a frame."""
    return type(engine).__name__ in ("Client", "SparkSession")

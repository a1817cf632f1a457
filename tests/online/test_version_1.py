"""Records of version 1 that lie on the topics: every process takes them beside new ones."""

from __future__ import annotations

import msgspec
import pytest

from freshet.online.control.controller import Controller
from freshet.online.control.rules import RetrainRules
from freshet.online.demo.count import Tally
from freshet.online.drift.monitor import DriftMonitor
from freshet.online.effects.table import EffectsTable
from freshet.online.learn.ledger import Ledger
from freshet.online.learn.process import Inbox
from freshet.online.worker.alarms import Alarms
from freshet.stream.codec import decode, encode
from freshet.stream.config import DriftSettings, Topics
from freshet.stream.kafka import TableRecord
from freshet.stream.schemas import DriftAlert, RetrainRequest
from freshet.stream.units import DAY_MS, HOUR_MS

TOPICS = Topics()
# As a worker, control and learn of version 1 wrote them.
ALERT = (
    b'{"alert_id":"a1","segment":"shoes","state":"drift","kind":"level","detector":"cusum",'
    b'"detected_at_ms":36000000,"onset_ms":21600000,"size":1.5,"weights_version":"base",'
    b'"description":"d","action":"a"}'
)
FORECAST = (
    b'{"forecast_id":"f1","item_id":"mug|n","sku":"mug","region":"n","resolution_ms":3600000,'
    b'"cutoff_ms":36000000,"issued_at_ms":36000500,"quantile_levels":[0.5],"quantiles":[[1.0]],'
    b'"weights_version":"base","weights_sha256":"s","offsets":{"o:0":7},"context_sha256":"c",'
    b'"compute":{"device":"cpu","dtype":"float32","batch_shape":[1,512]},"status":"ok",'
    b'"adjustments":{"level_factor":1.0,"calibration_id":null},"cumulative":null,'
    b'"conversion":null}'
)
SCORE = (
    b'{"item_id":"mug|n","segment":"shoes","resolution_ms":3600000,"bucket_start_ms":36000000,'
    b'"scored_at_ms":40500000,"actual":2.0,"steps":[{"forecast_id":"f1","weights_version":"base",'
    b'"step":1,"pinball":0.5,"seasonal_naive_pinball":1.0,"pit":0.9,"residual":0.4,'
    b'"covered_80":true,"median":1.0}],"in_stock":true}'
)
PROMOTED = (
    b'{"kind":"promoted","version":"base","at_ms":36000000,"sha256":"","manifest_sha256":"",'
    b'"uri":"","parent":"","request_id":"r1","worker":"","pause_ms":null,"reason":"",'
    b'"gate":{"gain":0.2,"gain_low.ok":true,"verdict":"promote"}}'
)


class AlertOfVersion1(msgspec.Struct):
    """The fields that version 1 knows of an alert."""

    alert_id: str
    segment: str
    state: str
    kind: str
    onset_ms: int


@pytest.mark.parametrize("main_ms", [HOUR_MS, DAY_MS])
def test_an_old_alert_fires_and_asks_for_training_whatever_the_shops_one_resolution_was(
    main_ms: int,
) -> None:
    control = Controller(TOPICS, RetrainRules(HOUR_MS, min_new_data_ms=0, schedule_ms=0), main_ms)
    fired = control.take(TOPICS.drift, b"shoes", ALERT, 0)
    control.published(fired)
    (request,) = control.tick(40_000_000)
    assert isinstance(request.record, RetrainRequest)
    assert request.record.alert_ids == ["a1"]
    assert control.take(TOPICS.models, b"k", PROMOTED, 0) == []


def test_an_old_alert_that_fires_is_resolved_by_a_new_worker_and_the_other_way_round() -> None:
    old = msgspec.json.decode(ALERT)
    new = {**old, "resolution_ms": HOUR_MS}
    for first, second in ((old, new), (new, old)):
        rules = RetrainRules(HOUR_MS, min_new_data_ms=0, schedule_ms=0)
        control = Controller(TOPICS, rules, HOUR_MS)
        over = {**second, "state": "stable", "detected_at_ms": 40_000_000}
        for record in (first, over):
            value = msgspec.json.encode(record)
            control.published(control.take(TOPICS.drift, b"shoes", value, 0))
        assert [alert.data.state for alert in control.book.known()] == ["resolved"]


def test_learn_takes_old_alerts_requests_and_promotions() -> None:
    ledger = Ledger(lambda event: None)
    inbox = Inbox(TOPICS, ledger, EffectsTable())
    for topic, value in ((TOPICS.drift, ALERT), (TOPICS.models, PROMOTED)):
        inbox.take(TableRecord(topic, b"k", value, 0, 0, 0))
    request = RetrainRequest(request_id="r2", requested_at_ms=0, reason="drift", alert_ids=["a1"])
    assert ledger.onset_ms(request) == 21_600_000
    assert ledger.serving is not None and ledger.serving.version == "base"


def test_a_new_workers_monitor_takes_over_an_old_alarm_and_an_old_reader_knows_a_new_one() -> None:
    monitor = DriftMonitor(DriftSettings(), HOUR_MS)
    alarms = Alarms(HOUR_MS)
    alarms.take(decode(DriftAlert, ALERT))
    (alarm,) = alarms.held()
    monitor.adopt(alarm)
    assert monitor.active() == {"shoes": ["level"]}
    told = msgspec.json.decode(
        encode(msgspec.structs.replace(alarm, resolution_ms=HOUR_MS)), type=AlertOfVersion1
    )
    assert (told.alert_id, told.onset_ms) == ("a1", 21_600_000)
    assert isinstance(alarm, DriftAlert)


def test_the_demo_counts_old_forecasts_and_scores_as_hours() -> None:
    tally = Tally()
    for kind, value in (("forecasts", FORECAST), ("scores", SCORE), ("models", PROMOTED)):
        assert tally.count(kind, value) is not None
    assert tally.unreadable == 0
    assert tally.forecast_section()["by_resolution"]["3600000"]["published"] == 1
    assert tally.sections()["scores"]["wql"] == 0.25

"""`freshet retrain`: ask learn for new weights by hand, and say what comes of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from freshet.online.control.requests import ANSWERS, by_hand, new_request_id
from freshet.stream.codec import decode, encode
from freshet.stream.config import Settings
from freshet.stream.errors import EventError
from freshet.stream.kafka import Publisher, TableReader
from freshet.stream.schemas import ModelEvent
from freshet.stream.store.clock import open_clock
from freshet.stream.store.connection import connect

POLL_MS = 500


def ask(settings: Settings, segments: Sequence[str]) -> str:
    """Put a request on the retrain topic; returns its id once that is acknowledged."""
    now_ms = open_clock(connect(settings.redis)).now_ms()
    request = by_hand(new_request_id(), now_ms, segments)
    with Publisher(settings) as publisher:
        topic = settings.kafka.topics.retrain
        publisher.produce(topic, encode(request), key=request.request_id)
        publisher.flush()
    return request.request_id


def progress(settings: Settings, request_id: str) -> Iterator[str]:
    """What learn says of a request, a line each, until it is answered; waits for days."""
    with TableReader(settings, [settings.kafka.topics.models]) as reader:
        while True:
            for record in reader.poll(POLL_MS):
                event = _event(record.value)
                if event is None or event.request_id != request_id:
                    continue
                yield f"{event.kind} {event.version} {event.reason}".rstrip()
                if event.kind in ANSWERS:
                    return


def _event(value: bytes | None) -> ModelEvent | None:
    try:
        return None if value is None else decode(ModelEvent, value)
    except EventError:
        return None

"""Records go out until all are acknowledged, however long the broker is away."""

from __future__ import annotations

from freshet.online.worker.health import Health
from freshet.stream.errors import BrokerError
from freshet.stream.kafka import Publisher
from freshet.stream.process import Stop

Outgoing = list[tuple[str, str, bytes]]
"""Topic, key and value of each record."""


class Delivery:
    """Sends records and waits for the acknowledgement of all of them.

    Args:
        publisher: Where to.
        health: Told of a broker that is away; pauses between attempts.
        stop: Ends the attempts.
    """

    def __init__(self, publisher: Publisher, health: Health, stop: Stop) -> None:
        self._publisher = publisher
        self._health = health
        self._stop = stop

    def deliver(self, outgoing: Outgoing) -> bool:
        """Send these until all are acknowledged; False when told to stop before that.

        After a failure all are sent again, so a record may be in the log twice, under the same id.
        """
        while outgoing:
            try:
                self._send(outgoing)
                break
            except BrokerError as error:
                self._health.wait_out(error)
                if self._stop.is_set():
                    return False
        return True

    def close(self) -> None:
        """Send what is queued."""
        self._publisher.close()

    def _send(self, outgoing: Outgoing) -> None:
        for topic, key, value in outgoing:
            self._publisher.produce(topic, value, key=key)
        self._publisher.flush()
        self._health.answered()

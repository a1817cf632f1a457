"""Every error freshet raises on purpose, as one tree.

FreshetError
├── ConfigError                 a setting is wrong or unknown
├── InvalidInputError           a caller's arrays or files do not have the promised shape
├── EventError                  one record cannot be used: it becomes a dead letter
├── BrokerError                 Kafka is missing, refuses us, or lacks a topic        (retriable)
│   ├── SchemaRegistryAwayError  the Schema Registry does not answer, or refuses us   (retriable)
│   └── RefusedError            Kafka will never take these records: too large, a strange timestamp
├── StoreError
│   ├── StoreUnavailableError   Redis does not answer                                 (retriable)
│   │   └── OtherFormatError    another version of freshet wrote what Redis holds     (retriable)
│   ├── StoreUnfitError         Redis answers but may not be used (eviction, no EVAL)
│   ├── FingerprintError        the stored windows were folded under other settings
│   └── LogLostError            the log is not, or no longer, the one that the windows go on from
├── WeightsError                weights are missing, corrupt or do not do what they did
└── RegistryError               a version or alias does not exist or was altered

`retriable` is decided on the class: it says whether the same call may succeed later without a
person acting.
"""


class FreshetError(Exception):
    """What failed, then where, then what a person can do.

    Args:
        message: One sentence: what failed, with the value and its place.
        hint: What to do about it, or empty.

    >>> str(FreshetError("port 8000 is taken", hint="choose another with --port"))
    'port 8000 is taken; choose another with --port'
    """

    retriable = False

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(f"{message}; {hint}" if hint else message)
        self.message = message
        self.hint = hint


class ConfigError(FreshetError):
    """A setting is wrong or unknown."""


class InvalidInputError(FreshetError):
    """A caller's arrays, table or file do not have the promised shape."""


class EventError(FreshetError):
    """One record cannot be used; it goes to the dead-letter topic with this text."""


class BrokerError(FreshetError):
    """Kafka is missing, refuses us, or lacks a topic."""

    retriable = True


class SchemaRegistryAwayError(BrokerError):
    """The Schema Registry does not answer, or refuses us: records wait for it."""


class RefusedError(BrokerError):
    """Kafka does not take certain records, now or later; the others were acknowledged."""

    retriable = False


class StoreError(FreshetError):
    """Something about the window store in Redis."""


class StoreUnavailableError(StoreError):
    """Redis does not answer."""

    retriable = True


class OtherFormatError(StoreUnavailableError):
    """Another version of freshet wrote what Redis holds: it is waited for one that we read."""


class StoreUnfitError(StoreError):
    """Redis answers but must not be used: it evicts keys, or has no scripting."""


class FingerprintError(StoreError):
    """The stored windows were folded under other settings."""


class LogLostError(StoreError):
    """The windows cannot go on: the offset left the log, or the topic was made again or shrank."""


class WeightsError(FreshetError):
    """Weights are missing, corrupt, or do not compute what they computed when they were saved."""


class RegistryError(FreshetError):
    """A version or an alias does not exist, or a registered file was altered."""

"""A Schema Registry, asked by confluent-kafka's own client and deserialisers."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from freshet.stream.config import RegistrySettings
from freshet.stream.errors import ConfigError, EventError, SchemaRegistryAwayError

UNKNOWN_FOR_S = 30.0
MAX_UNKNOWN = 1_000
NOT_FOUND = 404
NOT_THERE = frozenset({40401, 40402, 40403})
"""What a registry says of a subject, version or schema that it does not have."""

Headers = Sequence[tuple[str, bytes | None]]
Deserialise = Callable[[bytes, Headers], Any]


def deserialiser(
    format: str, registry: RegistrySettings, *, schema: str | None = None, message: Any = None
) -> Deserialise:
    """Reads records that begin with, or have in a header, the id of their schema.

    Args:
        format: avro, protobuf or json_schema.
        registry: Where schemas are asked for.
        schema: A reader's schema, as text; None reads by the writer's.
        message: A Protobuf class to read by; None makes the writer's.

    Returns:
        A function of a record's bytes and headers that blocks where a schema is new. It raises
        EventError where the record cannot be read, and SchemaRegistryAwayError where the registry
        does not answer.

    Raises:
        ConfigError: The library's parts are not installed, or the registry's settings are unfit.
    """
    try:
        # Protobuf and JSON Schema can be read by what is given, without asking anybody.
        client = _client(registry) if registry.url or not (schema or message) else None
        read = {"avro": _avro, "protobuf": _protobuf, "json_schema": _json}[format]
        return _Guarded(read(client, schema, message), registry.url)
    except ImportError as error:
        raise missing_extra(error) from None
    except (ValueError, TypeError, OSError) as error:
        raise ConfigError(f"kafka.registry cannot be used: {error}") from None


def missing_extra(error: ImportError) -> ConfigError:
    """What is said where the libraries of these formats are not there."""
    return ConfigError(
        f"Avro, Protobuf and JSON Schema need more libraries ({error.name} is missing)",
        hint="pip install 'freshet[registry]'",
    )


def _client(registry: RegistrySettings) -> Any:
    from confluent_kafka.schema_registry import SchemaRegistryClient

    if not registry.url:
        raise ConfigError(
            "records begin with a schema id, and there is no registry to ask",
            hint="set kafka.registry.url, or the topic's schema_file",
        )
    config: dict[str, Any] = {
        "url": registry.url,
        "timeout": registry.timeout_ms / 1_000,
        "max.retries": 0,  # Whoever reads waits, and tells people meanwhile.
    }
    if registry.username:
        config["basic.auth.user.info"] = (
            f"{registry.username}:{registry.password.get_secret_value()}"
        )
    if registry.ca_location:
        config["ssl.ca.location"] = registry.ca_location
    return SchemaRegistryClient(config)


def ask_registry(registry: RegistrySettings) -> None:
    """Ask for a schema, whichever: one that is not there is an answer too.

    Raises:
        SchemaRegistryAwayError: It does not answer, or refuses us.
        ConfigError: The libraries that speak with it are not there, or its settings are unfit.
    """
    try:
        client = _client(registry)
        from confluent_kafka.schema_registry.error import SchemaRegistryError
    except ImportError as error:
        raise missing_extra(error) from None
    except (ValueError, TypeError, OSError) as error:
        raise ConfigError(f"kafka.registry cannot be used: {error}") from None
    try:
        client.get_schema(1)
    except SchemaRegistryError as error:
        if error.http_status_code in (401, 403):
            raise SchemaRegistryAwayError(
                f"the Schema Registry at {registry.url} does not let us in: {error}",
                hint="are kafka.registry.username and password right?",
            ) from None
        if error.http_status_code != NOT_FOUND:
            raise _away(registry.url, str(error)) from None
    except Exception as error:  # Its HTTP library is the library's own choice.
        raise _away(registry.url, f"{type(error).__name__}: {error}") from None


def _away(url: str, reason: str) -> SchemaRegistryAwayError:
    return SchemaRegistryAwayError(
        f"the Schema Registry at {url} does not answer ({reason})",
        hint="records wait for it; is kafka.registry right?",
    )


# Without a subject the library asks for nothing but schemas, and runs no rules on records.
_CONFIG = {"subject.name.strategy": lambda context, name: None}


def _context(headers: Headers) -> Any:
    from confluent_kafka.serialization import MessageField, SerializationContext

    return SerializationContext("", MessageField.VALUE, list(headers))


def _avro(client: Any, schema: str | None, message: Any) -> Deserialise:
    from confluent_kafka.schema_registry.avro import AvroDeserializer

    read = AvroDeserializer(client, schema, conf=_CONFIG)
    return lambda value, headers: read(value, _context(headers))


def _json(client: Any, schema: str | None, message: Any) -> Deserialise:
    from confluent_kafka.schema_registry.json_schema import JSONDeserializer

    read = JSONDeserializer(
        schema, schema_registry_client=client, conf=_CONFIG, json_decode=msgspec.json.decode
    )
    return lambda value, headers: read(value, _context(headers))


def _protobuf(client: Any, schema: str | None, message: Any) -> Deserialise:
    return _Protobuf(client, message)


class _Protobuf:
    """One deserialiser for each message that writers use, made from the writer's own schema."""

    def __init__(self, client: Any, message: Any) -> None:
        from confluent_kafka.schema_registry.protobuf import ProtobufDeserializer
        from google.protobuf.empty_pb2 import Empty

        self._make: Any = lambda kind: ProtobufDeserializer(kind, _CONFIG, client)
        self._schemas = self._make(Empty)
        self._ours = None if message is None else self._make(message)
        self._of_writer: dict[Any, Any] = {}

    def __call__(self, value: bytes, headers: Headers) -> Any:
        context = _context(headers)
        read = self._ours or self._reader(value, context)
        return read(value, context)

    def _reader(self, value: bytes, context: Any) -> Any:
        from confluent_kafka.schema_registry import dual_schema_id_deserializer
        from confluent_kafka.schema_registry.serde import SchemaId
        from google.protobuf.message_factory import GetMessageClass

        said = SchemaId("PROTOBUF")
        dual_schema_id_deserializer(value, context, said)
        place = (said.id, said.guid, *(said.message_indexes or ()))
        if place not in self._of_writer:
            schemas = self._schemas
            schema = schemas._get_writer_schema(said, None, fmt="serialized")
            file, pool = schemas._get_parsed_schema(schema)
            of_file = pool.FindFileByName(file.name)
            kind = schemas._get_message_desc(pool, of_file, said.message_indexes or [0])
            self._of_writer[place] = self._make(GetMessageClass(kind))
        return self._of_writer[place]


class _Guarded:
    """Tells a record that cannot be read from a registry that cannot be asked.

    An id that the registry does not know is not asked for again for half a minute: a topic full of
    such records would otherwise cost a question each.
    """

    def __init__(self, read: Deserialise, url: str) -> None:
        from confluent_kafka.schema_registry.error import SchemaRegistryError
        from httpx2 import HTTPError

        self._read = read
        self._url = url
        self._refused: Any = SchemaRegistryError
        self._unreached: Any = HTTPError
        self._unknown: dict[bytes, float] = {}

    def __call__(self, value: bytes, headers: Headers) -> Any:
        name = value[:5]
        if self._unknown.get(name, 0.0) > time.monotonic():
            raise EventError(_unknown(name))
        try:
            return self._read(value, headers)
        except self._unreached as error:
            raise _away(self._url, f"{type(error).__name__}: {error}") from None
        except self._refused as error:
            if error.error_code not in NOT_THERE:
                raise _away(self._url, str(error)) from None
            raise EventError(self._note_unknown(name, error)) from None
        except Exception as error:  # Of a record's bytes the libraries raise whatever they like.
            raise EventError(f"{type(error).__name__}: {error}") from None

    def _note_unknown(self, name: bytes, error: Exception) -> str:
        if name[:1] != b"\0":  # The id is in a header, or a longer one.
            return f"the Schema Registry does not have its schema: {error}"
        if len(self._unknown) >= MAX_UNKNOWN:
            self._unknown.clear()
        self._unknown[name] = time.monotonic() + UNKNOWN_FOR_S
        return _unknown(name)


def _unknown(name: bytes) -> str:
    return f"the Schema Registry has no schema {int.from_bytes(name[1:], 'big')}"

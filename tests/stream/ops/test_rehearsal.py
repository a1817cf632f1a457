"""What a load would bring is counted, and nothing is sent."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import pytest

from freshet.stream.config import Settings
from freshet.stream.errors import InvalidInputError
from freshet.stream.ops.rehearsal import rehearse
from freshet.stream.ops.trial_records import of_file as records_of
from freshet.stream.source.history import of_file

STATES = Settings(events={"orders": {"mode": "state"}})
EXPORT = """\
Name,Created at,Lineitem quantity,Lineitem price,Lineitem sku,Cancelled at,Id,Shipping Country
#2,2025-10-07 23:30:00 -0500,3,34.90,M-1,,7411,CA
#2,,1,9.50,00123,,,
#1,2025-10-06 10:00:00 -0500,2,34.90,M-1,,7410,US
#3,2025-12-24 10:00:00 -0500,9,34.90,M-1,2025-12-25 10:00:00 -0500,7412,CA
#4,2025-10-09 10:00:00 -0500,1,5.00,,,7413,CA
"""


def test_an_export_is_counted_as_it_would_be_loaded(tmp_path: Path) -> None:
    path = tmp_path / "orders_export.csv"
    path.write_text(EXPORT)
    found = rehearse(STATES, of_file(path, preset="shopify_csv", events=STATES.events))
    # Three orders are not cancelled: of 4, 2 and 1 units; the second begins on the eighth in UTC.
    assert found.series == {"M-1|CA", "00123|CA", "M-1|US", "no-sku|CA"}
    assert found.as_text() == (
        "3 records: 3 applied; 7 units of 4 series, 2025-10-06 to 2025-10-09 (UTC)"
    )


def test_lines_that_do_not_count_say_why(tmp_path: Path) -> None:
    path = tmp_path / "old.jsonl"
    good = '{"event_id":"1","event_time":0,"sku":"a","region":"n","quantity":-2,"unit_price":1}'
    path.write_text(f"{good}\n{good}\n{{}}\n[\n")
    text = rehearse(Settings(), of_file(path)).as_text().splitlines()
    assert text[0] == (
        "4 records: 2 dead_letter, 1 applied, 1 duplicate; "
        "-2 units of 1 series, 1970-01-01 to 1970-01-01 (UTC)"
    )
    assert text[1].startswith("1 x duplicate: an event of this id came before")
    assert sum("dead_letter" in line for line in text[1:]) == 2


def test_a_table_is_not_tried_as_records(tmp_path: Path) -> None:
    path = tmp_path / "orders_export.csv"
    path.write_text(EXPORT)
    with pytest.raises(InvalidInputError, match=r"orders_export\.csv is a table.*--dry-run"):
        records_of(path, BytesIO())

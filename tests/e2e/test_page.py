"""The page in a real browser, over a real protocol and Redis: what a visitor sees and is told."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from confluent_kafka import Producer
from playwright.sync_api import Browser, Page, expect

from freshet.online.control.door import PATH, Door
from freshet.stream.codec import encode
from freshet.stream.config import Settings
from freshet.stream.schemas import Adjustments, ModelEvent, RetrainRequest
from freshet.stream.telemetry import serve_http
from freshet.stream.units import DAY_MS, HOUR_MS, MINUTE_MS
from tests.e2e.conftest import RUN, environment
from tests.e2e.shop_world import HOURS, SALE_HOURS, World
from tests.starved import Stopwatch

DESKTOP = {"width": 1440, "height": 900}
PHONE = {"width": 390, "height": 844}
ANSWER_TIMEOUT_MS = 90_000
# A stop takes 0.2 s where the machine is quiet.
STOP_TIMEOUT_S = 2.0
DEMO_SECONDS = 60
DEMO_TIMEOUT_S = 400.0

expect.set_options(timeout=ANSWER_TIMEOUT_MS)


@contextmanager
def visit(
    browser: Browser, url: str, *, size: Any = DESKTOP, scheme: Any = "light"
) -> Iterator[Page]:
    """A visitor's page; a failed request, an error or a word in its console fails the test."""
    context = browser.new_context(viewport=size, color_scheme=scheme, reduced_motion="reduce")
    page, trouble = context.new_page(), []
    page.on("console", lambda message: trouble.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: trouble.append(str(error)))
    page.on(
        "response",
        lambda answer: (
            trouble.append(f"{answer.status} {answer.url}") if answer.status >= 400 else None
        ),
    )
    page.goto(url)
    try:
        yield page
    finally:
        context.close()
    assert trouble == []


def wait_for_chart(page: Page, item_id: str) -> None:
    expect(page.locator("#fan")).to_have_attribute("data-item", item_id)
    expect(page.locator("#fan .main-svg").first).to_be_visible()


def test_items_appear_and_a_click_draws_the_chart_of_that_item(
    page_url: str, browser: Browser
) -> None:
    with visit(browser, page_url) as page:
        expect(page.locator(".row")).to_have_count(24)
        expect(page.locator(".row .spark-line").first).to_be_attached()
        first = page.locator(".row").first.get_attribute("data-item")
        assert first is not None
        wait_for_chart(page, first)
        page.locator('.row[data-item="LAMP-09|south"]').click()
        expect(page.locator("#item-title")).to_have_text("Head torch 400 lm")
        wait_for_chart(page, "LAMP-09|south")
        assert page.locator("#fan .scatterlayer .trace").count() >= 9
        assert page.url.endswith("#item=LAMP-09%7Csouth")


def test_the_numbers_on_the_page_are_those_of_the_topics_and_windows(
    page_url: str, browser: Browser, world: World
) -> None:
    sold = sum(int(series.sold[HOURS - 24 : HOURS].sum()) for series in world.series)
    with visit(browser, page_url) as page:
        figures = page.locator("#figures")
        expect(figures).to_contain_text(f"{sold:,}")
        expect(figures).to_contain_text(f"{world.num_forecasts:,} for 24 series")
        expect(figures).to_contain_text("below seasonal naive")
        expect(page.locator("#models")).to_contain_text("v0003")
        expect(page.locator(".version.rejected")).to_contain_text("gain_low -0.031 against 0.01")
        drift = page.locator("#drift")
        expect(drift).to_contain_text("Outcomes of Electronics scatter more")
        # Of 1.25 pinball one is left. Its 19 hours of six series at two steps each.
        expect(drift).to_contain_text("Gained 20 % of the error")
        expect(drift).to_contain_text("over 228 scored steps")
        expect(drift).to_contain_text("Training the new weights are not better: gain_low -0.031")
        expect(page.locator("#models")).to_contain_text("error −26 %")
        expect(page.locator("#flash")).to_contain_text("Enamel mug, set of four")
        expect(page.locator("#error .main-svg").first).to_be_visible()


def test_the_page_is_shown_on_desktop_and_phone_in_light_and_dark(
    page_url: str, browser: Browser, screenshots: Path
) -> None:
    for name, size in (("desktop", DESKTOP), ("phone", PHONE)):
        for scheme in ("light", "dark"):
            with visit(browser, page_url, size=size, scheme=scheme) as page:
                expect(page.locator("#fan .main-svg").first).to_be_visible()
                expect(page.locator("#error .main-svg").first).to_be_visible()
                expect(page.locator("#flash .card").first).to_be_visible()
                width = page.evaluate("document.documentElement.scrollWidth")
                assert width <= size["width"], f"{name} scrolls sideways: {width} px"
                picture = page.screenshot(path=screenshots / f"{name}-{scheme}.png", full_page=True)
                assert len(picture) > 50_000


def test_search_sort_keyboard_and_theme_work_without_a_mouse(
    page_url: str, browser: Browser
) -> None:
    with visit(browser, page_url) as page:
        expect(page.locator(".row")).to_have_count(24)
        page.keyboard.press("/")
        page.keyboard.type("tent west")
        expect(page.locator(".row")).to_have_count(1)
        page.keyboard.press("Escape")
        expect(page.locator(".row")).to_have_count(24)
        page.locator("#sort").select_option("title:asc")
        expect(page.locator(".row").first).to_contain_text("Cast-iron pan")
        page.locator(".row").first.focus()
        page.keyboard.press("ArrowDown")
        page.keyboard.press("ArrowDown")
        page.keyboard.press("Enter")
        third = page.locator(".row").nth(2).get_attribute("data-item")
        expect(page.locator('.row[aria-current="true"]')).to_have_attribute("data-item", str(third))
        paper = "getComputedStyle(document.body).backgroundColor"
        before = page.evaluate(paper)
        page.keyboard.press("t")
        assert page.evaluate(paper) != before
        page.reload()
        assert page.evaluate(paper) != before


def test_hours_days_and_a_sale_s_minutes_are_a_choice_that_the_address_keeps(
    page_url: str, browser: Browser
) -> None:
    with visit(browser, f"{page_url}#item=MUGS-11%7Cnorth") as page:
        wait_for_chart(page, "MUGS-11|north")
        choices = page.locator("#width label")
        expect(choices).to_have_text(["Hours", "Days", "Minutes"])
        expect(page.get_by_role("radio", name="Hours")).to_be_checked()
        assert "by=" not in page.url
        page.get_by_role("radio", name="Hours").focus()
        for name, ms, span, rows in (
            ("day", DAY_MS, "4 w", 21),
            ("minute", MINUTE_MS, "30 min", 120),
        ):
            page.keyboard.press("ArrowRight")
            expect(page.locator("#fan")).to_have_attribute("data-width", str(ms))
            expect(page.locator("#span label").first).to_have_text(span)
            assert page.url.endswith(f"#item=MUGS-11%7Cnorth&by={name}")
            page.locator("#fan-data").evaluate("details => { details.open = true; }")
            expect(page.locator("#fan-data tbody tr")).to_have_count(rows)
        # What sold by the minute is there too, in ink.
        points = (
            "document.querySelector('#fan').data.flatMap((t) => t.y).filter((y) => y > 0).length"
        )
        assert page.evaluate(points) > 120
        page.reload()
        expect(page.get_by_role("radio", name="Minutes")).to_be_checked()
        # Another item keeps the choice where it can; boots have no sale.
        page.get_by_role("radio", name="Days").click()
        page.locator('.row[data-item="BOOT-01|north"]').click()
        expect(page.locator("#item-title")).to_have_text("Trail boot, waterproof")
        expect(choices).to_have_text(["Hours", "Days"])
        expect(page.get_by_role("radio", name="Days")).to_be_checked()
        assert page.url.endswith("#item=BOOT-01%7Cnorth&by=day")


def test_while_a_shop_warms_up_the_page_says_so_and_draws_no_line(
    page_url: str, browser: Browser
) -> None:
    with visit(browser, f"{page_url}#item=GLOV-05%7Cnorth&by=day") as page:
        wait_for_chart(page, "GLOV-05|north")
        expect(page.locator("#facts")).to_contain_text("warming up")
        expect(page.locator("#fan")).to_contain_text("warming up: the shop is too young")
        expect(page.locator("#fan")).to_have_attribute("aria-label", re.compile("warming up"))
        # What was sold, and neither bands nor a median.
        assert page.locator("#fan .scatterlayer .trace").count() == 1


def test_the_board_counts_a_sale_by_the_minute(
    page_url: str, browser: Browser, world: World
) -> None:
    sold = {
        series.region: sum(
            sum(world.sold_by_minute(series, hour).values())
            for hour in range(HOURS - SALE_HOURS, HOURS + 1)
        )
        for series in world.on_sale()
    }
    with visit(browser, page_url) as page:
        expect(page.locator("#flash")).to_contain_text(f"{sum(sold.values()):,} sold")
        answer = httpx.get(f"{page_url}api/flash-sales").json()
        [sale] = [one for one in answer["sales"] if one["state"] == "running"]
        assert {row["region"]: row["sold"] for row in sale["items"]} == sold
        assert list(answer["offsets"].values()) == [len(world.orders())]
        expect(page.locator("#flash .bar-row").nth(1)).to_contain_text("±")


def test_rounds_that_are_not_whole_are_told_quietly(page_url: str, browser: Browser) -> None:
    with visit(browser, page_url) as page:
        expect(page.locator("#rounds")).to_have_text(
            "Rounds: of the newest minute, 2 of 3 forecasts are out; "
            "3 minutes were skipped in a day."
        )


def test_the_totals_are_told_whole_on_a_small_screen(page_url: str, browser: Browser) -> None:
    with visit(browser, page_url, size={"width": 1280, "height": 800}) as page:
        expect(page.locator("#figures")).to_contain_text("below seasonal naive")
        cut = (
            "[...document.querySelectorAll('#figures dd')]"
            ".filter((node) => node.scrollWidth > node.clientWidth + 1)"
            ".map((node) => node.textContent)"
        )
        assert page.evaluate(cut) == []


def test_every_chart_has_a_table_behind_it(page_url: str, browser: Browser) -> None:
    with visit(browser, page_url) as page:
        expect(page.locator("#fan .main-svg").first).to_be_visible()
        page.locator("#fan-data summary").click()
        expect(page.locator("#fan-data tbody tr")).to_have_count(24)
        expect(page.locator("#error .main-svg").first).to_be_visible()
        page.locator("#error-data summary").click()
        expect(page.locator("#error-data tbody")).to_contain_text("promoted v0003-9f2c1a")
        page.locator(".version summary").first.click()
        expect(page.locator(".version table").first).to_contain_text("gain low")


def test_a_new_forecast_reaches_an_open_page(
    page_url: str, browser: Browser, shop_settings: Settings, world: World
) -> None:
    series = world.series[0]
    newer = replace_version(world.forecast(series, HOURS), "v9999-live")
    # Monday, 2026-01-05 08:00 UTC.
    newer = msgspec.structs.replace(newer, adjustments=Adjustments(begins_at_ms=1_767_600_000_000))
    with visit(browser, f"{page_url}#item=BOOT-01%7Cnorth") as page:
        wait_for_chart(page, series.item_id)
        expect(page.locator("#facts")).to_contain_text("v0003")
        expect(page.locator("#facts")).not_to_contain_text("hidden")
        producer = Producer({"bootstrap.servers": shop_settings.kafka.bootstrap_servers})
        producer.produce(shop_settings.kafka.topics.forecasts, encode(newer), series.item_id)
        assert producer.flush(10) == 0
        expect(page.locator("#facts")).to_contain_text("v9999")
        expect(page.locator("#facts")).to_contain_text("days before Mon 08:00 hidden")


def test_text_from_topics_is_shown_as_text(
    page_url: str, browser: Browser, shop_settings: Settings
) -> None:
    producer = Producer({"bootstrap.servers": shop_settings.kafka.bootstrap_servers})
    evil = b"<img src=x onerror=alert(1)><b>bold</b>"
    catalog = b'{"sku":"BOOT-01","title":"%s","category":"%s"}' % (evil, evil)
    drift = (
        b'{"alert_id":"x","segment":"%s","state":"drift","kind":"level","detector":"%s","detected_at_ms":1,"onset_ms":1,'
        b'"size":1.0,"weights_version":"%s","description":"%s","action":"%s"}'
    ) % ((evil,) * 5)
    producer.produce(shop_settings.kafka.topics.catalog, catalog, "BOOT-01")
    producer.produce(shop_settings.kafka.topics.drift, drift, "x")
    assert producer.flush(10) == 0
    with visit(browser, f"{page_url}#item=BOOT-01%7Cnorth") as page:
        expect(page.locator("#item-title")).to_have_text(evil.decode())
        expect(page.locator("#drift")).to_contain_text(evil.decode())
        assert page.locator("main img, main b:has-text('bold')").count() == 0


def minutes_in(age: str) -> int:
    """How many minutes an age on the page is."""
    hours, minutes = (re.search(rf"(\d+) {unit}\b", age) for unit in ("h", "min"))
    return 60 * int(hours[1] if hours else 0) + int(minutes[1] if minutes else 0)


def test_the_page_says_how_old_each_number_is_and_ages_grow_while_nothing_comes(
    page_url: str, browser: Browser
) -> None:
    with visit(browser, page_url) as page:
        ages = page.locator("#figures .age")
        expect(ages).to_have_count(6)
        # Sales end with the last whole hour, 20 minutes before; a minute passes each second.
        told = re.compile(r"^(sales|forecasts|scores|last alert) (\d+ h )?\d+ (min|h) old$")
        for place in range(6):
            expect(ages.nth(place)).to_have_text(told)

        def minutes() -> list[int]:
            return [minutes_in(text) for text in ages.all_text_contents()]

        # Older forecasts are read before the newest one.
        wait_until(lambda: minutes()[1] <= minutes()[0])
        sold, forecast, *_, alert = minutes()
        assert sold >= 20 and 0 <= forecast <= sold
        assert 299 <= alert - sold <= 301, "the alert came 5 hours before"
        sales = ages.nth(0)
        first = sales.text_content()
        expect(sales).not_to_have_text(str(first))
        expect(sales).not_to_have_class(re.compile("late"))


def test_what_could_not_be_read_is_counted_and_told_on_the_page(
    page_url: str, browser: Browser
) -> None:
    with visit(browser, page_url) as page:
        told = page.locator("#unusable")
        expect(told).to_contain_text("3 records could not be used: ")
        for kind in ("1 of forecasts", "1 of scores", "1 of drift"):
            expect(told).to_contain_text(kind)
        expect(told).to_contain_text(
            re.compile(r"The newest: page\S+:\d at offset \d+: EventError")
        )


def test_numbers_beyond_all_sense_leave_every_panel_working(
    page_url: str, browser: Browser, shop_settings: Settings, world: World
) -> None:
    topics = shop_settings.kafka.topics
    drift = (
        b'{"alert_id":"x","segment":"s","state":"drift","kind":"level","detector":"d","size":1e308,'
        b'"detected_at_ms":%s,"onset_ms":0,"weights_version":"","description":"","action":""}'
    )
    newest = world.forecast(world.series[0], HOURS)
    huge = msgspec.structs.replace(
        replace_version(newest, "v9999-odd"),
        adjustments=Adjustments(level_factor=-1e308),
        quantiles=[[3e38] * len(newest.quantile_levels)] * len(newest.quantiles),
    )
    gate = {"x": 1e308, "x.ok": False, ".ok": True, "y.ok": "no", "x.threshold": "<b>"}
    odd = ModelEvent(
        kind="promoted", version="v8-odd", at_ms=0, gate=gate, pause_ms=1e308, request_id="r1"
    )
    producer = Producer({"bootstrap.servers": shop_settings.kafka.bootstrap_servers})
    producer.produce(topics.drift, drift % b"10000000000000000000000000000000", "a")
    producer.produce(topics.drift, drift % b"0", "s")
    producer.produce(topics.forecasts, encode(huge), newest.item_id)
    producer.produce(topics.models, encode(odd), "odd")
    price = b'{"sku":"BOOT-01","title":"Boot","category":"Footwear","unit_price":1e15}'
    producer.produce(topics.catalog, price, "BOOT-01")
    assert producer.flush(10) == 0
    with visit(browser, f"{page_url}#item=BOOT-01%7Cnorth") as page:
        expect(page.locator("#facts")).to_contain_text("v9999")
        expect(page.locator("#drift")).to_contain_text("Electronics")
        expect(page.locator("#models")).to_contain_text("v8")
        expect(page.locator("#unusable")).to_contain_text("2 of drift")
        expect(page.locator("#error .main-svg").first).to_be_visible()
        expect(page.locator(".row")).to_have_count(24)
        width = page.evaluate("document.documentElement.scrollWidth")
        assert width <= DESKTOP["width"]


def test_a_page_without_any_data_says_what_it_waits_for(
    mock_broker: str, redis_server: str, browser: Browser, tmp_path: Path
) -> None:
    settings = Settings()
    kafka = settings.kafka.model_copy(
        update={"bootstrap_servers": mock_broker, "topics": unused_topics(settings)}
    )
    redis = settings.redis.model_copy(update={"url": type(settings.redis.url)(redis_server)})
    with running(settings.model_copy(update={"kafka": kafka, "redis": redis}), tmp_path) as (
        process,
        url,
    ):
        with visit(browser, url) as page:
            for text in (
                "Waiting for the first items",
                "Waiting for the first forecasts",
                "Waiting for the first scores",
            ):
                expect(page.get_by_text(text)).to_be_visible()
            expect(page.get_by_text("No flash sale now")).to_be_visible()
        stop(process)


def unused_topics(settings: Settings) -> Any:
    names = {
        name: f"empty{time.time_ns()}.{name}" for name in type(settings.kafka.topics).model_fields
    }
    return type(settings.kafka.topics)(**names)


# The process --------------------------------------------------------------------------------------


@contextmanager
def running(
    settings: Settings, folder: Path, **more: str
) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A dashboard process and its address."""
    with (folder / "dashboard.log").open("w") as log:
        argv = [sys.executable, "-c", RUN]
        process = subprocess.Popen(
            argv, env=environment(settings) | more, stdout=subprocess.PIPE, stderr=log, text=True
        )
    assert process.stdout is not None
    try:
        yield process, process.stdout.readline().strip()
    finally:
        process.kill()
        process.wait(60)


def stop(process: subprocess.Popen[str]) -> float:
    """Seconds from SIGTERM to a clean end."""
    watch = Stopwatch(process.pid)
    process.send_signal(signal.SIGTERM)
    took_s = watch.until_end(process.pid)
    assert process.wait() == 0
    return took_s


def wait_until(true: Any, timeout_s: float = 180.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def test_a_stop_ends_open_streams_soon_with_status_0(
    shop_settings: Settings, tmp_path: Path
) -> None:
    with (
        running(shop_settings, tmp_path) as (process, url),
        ExitStack() as streams,
        httpx.Client() as client,
    ):
        wait_until(lambda: client.get(f"{url}readyz").status_code == 200)
        for _ in range(3):
            answer = streams.enter_context(client.stream("GET", f"{url}api/stream"))
            assert b"event: update" in next(part for part in answer.iter_raw() if b"event" in part)
        assert stop(process) < STOP_TIMEOUT_S


def test_streams_beyond_the_limit_are_refused_and_the_page_lives_on(
    shop_settings: Settings, tmp_path: Path
) -> None:
    few = {"FRESHET_DASHBOARD__MAX_SUBSCRIBERS": "2"}
    with running(shop_settings, tmp_path, **few) as (process, url), httpx.Client() as client:
        with ExitStack() as streams:
            for _ in range(2):
                assert (
                    streams.enter_context(client.stream("GET", f"{url}api/stream")).status_code
                    == 200
                )
            refused = client.get(f"{url}api/stream")
            assert (refused.status_code, "max_subscribers" in refused.text) == (503, True)
            assert client.get(f"{url}api/overview").status_code == 200

        def seated() -> bool:
            with client.stream("GET", f"{url}api/stream") as answer:
                return answer.status_code == 200

        wait_until(seated)
        stop(process)


def test_with_a_token_the_page_opens_by_one_address_and_stays_open_without_it(
    shop_settings: Settings, browser: Browser, tmp_path: Path
) -> None:
    token = {"FRESHET_DASHBOARD__READ_TOKEN": "correct-horse-battery"}
    with running(shop_settings, tmp_path, **token) as (process, url):
        assert httpx.get(f"{url}api/overview").status_code == 401
        with visit(browser, f"{url}?token=correct-horse-battery#item=LAMP-09%7Csouth") as page:
            wait_for_chart(page, "LAMP-09|south")
            expect(page.locator("#connection")).to_have_attribute("data-state", "live")
            assert "token" not in page.url
            page.goto(url)
            expect(page.locator(".row")).to_have_count(24)
        assert stop(process) < STOP_TIMEOUT_S


def test_who_knows_the_token_asks_for_training_on_the_page(
    shop_settings: Settings, browser: Browser, tmp_path: Path, screenshots: Path
) -> None:
    asked: list[list[str]] = []

    def ask(segments: list[str]) -> RetrainRequest:
        asked.append(segments)
        return RetrainRequest(request_id="manual-7", requested_at_ms=5, reason="manual")

    door = Door("correct-horse-battery", ask)
    port = serve_http(0, lambda: None, lambda: None, posts={PATH: door})
    control = {"FRESHET_DASHBOARD__CONTROL_URL": f"http://127.0.0.1:{port}"}
    with running(shop_settings, tmp_path, **control) as (_, url), visit(browser, url) as page:
        wrong = {"authorization": "Bearer wrong-horse-battery"}
        assert httpx.post(f"{url}api/retrain", headers=wrong).status_code == 403
        page.locator("#retrain-open").click()
        page.locator("#retrain-token").fill("correct-horse-battery")
        page.locator("#retrain-segment").select_option(index=1)
        segment = page.locator("#retrain-segment").input_value()
        page.screenshot(path=screenshots / "retrain.png", full_page=True)
        assert (segment != "", asked) == (True, [])
        page.locator("#retrain button").click()
        expect(page.locator("#retrain-answer")).to_contain_text("Asked for")
        assert asked == [[segment]]


def test_broken_records_are_counted_and_skipped(page_url: str, world: World) -> None:
    def metrics() -> str:
        return httpx.get(f"{page_url}metrics").text

    told = [f'records_total{{kind="forecasts",usable="yes"}} {world.num_forecasts}.0']
    for kind in ("forecasts", "scores", "drift"):
        told.append(f'records_total{{kind="{kind}",usable="no"}} 1.0')
    wait_until(lambda: all(line in metrics() for line in told))


def test_what_the_embedded_broker_has_dropped_does_not_stop_the_page(
    page_url: str, shop_settings: Settings, world: World
) -> None:
    wait_until(lambda: httpx.get(f"{page_url}readyz").status_code == 200)
    producer = Producer({"bootstrap.servers": shop_settings.kafka.bootstrap_servers})
    for _ in range(12):
        producer.produce(shop_settings.kafka.topics.forecasts, b"x" * 900_000, "pad", partition=0)
        producer.flush(10)
    newest = replace_version(world.forecast(world.series[0], HOURS), "v7777-later")
    producer.produce(shop_settings.kafka.topics.forecasts, encode(newest), "last", partition=0)
    assert producer.flush(10) == 0

    def served() -> bool:
        item = httpx.get(f"{page_url}api/items/BOOT-01%7Cnorth").json()
        return bool(item["forecast"]["weights_version"] == "v7777-later")

    wait_until(served)


def replace_version(forecast: Any, version: str) -> Any:
    values = {name: getattr(forecast, name) for name in forecast.__struct_fields__}
    return type(forecast)(
        **values | {"weights_version": version, "cutoff_ms": forecast.cutoff_ms + HOUR_MS}
    )


def test_without_broker_and_redis_the_page_opens_and_says_so(
    browser: Browser, tmp_path: Path
) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        nowhere = f"127.0.0.1:{closed.getsockname()[1]}"
        settings = Settings()
        kafka = settings.kafka.model_copy(update={"bootstrap_servers": nowhere})
        redis = settings.redis.model_copy(
            update={"url": type(settings.redis.url)(f"redis://{nowhere}/0")}
        )
        with running(settings.model_copy(update={"kafka": kafka, "redis": redis}), tmp_path) as (
            process,
            url,
        ):
            with visit(browser, url) as page:
                expect(page.locator("#problem")).to_contain_text(f"Kafka at {nowhere}")
                expect(page.locator("#problem")).to_contain_text(
                    f"Redis at {nowhere} does not answer"
                )
            assert httpx.get(f"{url}readyz").status_code == 503
            assert httpx.get(f"{url}livez").status_code == 200
            assert stop(process) < STOP_TIMEOUT_S


# The live demo ------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_demo_shows_real_forecasts_and_an_item_s_chart(
    browser: Browser, tmp_path: Path, screenshots: Path
) -> None:
    argv = [sys.executable, "-m", "freshet", "demo", "--port", "0", "--seconds", str(DEMO_SECONDS)]
    argv += ["--seed", "1", "--data-dir", str(tmp_path / "demo")]
    with (tmp_path / "demo.log").open("w") as log:
        process = subprocess.Popen(argv, stdout=log, stderr=subprocess.STDOUT)
    try:
        url = demo_address(process, tmp_path / "demo.log")
        wait_until(lambda: forecasts_of(url) > 0, DEMO_TIMEOUT_S)
        with visit(browser, url) as page:
            page.locator(".row").nth(3).click()
            item_id = page.locator('.row[aria-current="true"]').get_attribute("data-item")
            wait_for_chart(page, str(item_id))
            expect(page.locator("#facts")).to_contain_text("Weights")
            page.screenshot(path=screenshots / "demo.png", full_page=True)
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(120) in (0, 1, 130), (tmp_path / "demo.log").read_text()


def demo_address(process: subprocess.Popen[Any], log: Path) -> str:
    """The page's address as the demo prints it."""
    found: list[str] = []

    def printed() -> bool:
        assert process.poll() is None, log.read_text()
        found.extend(re.findall(r"\bpage (http://\S+/)", log.read_text()))
        return bool(found)

    wait_until(printed, DEMO_TIMEOUT_S)
    return found[0]


def forecasts_of(url: str) -> int:
    try:
        return int(httpx.get(f"{url}api/overview", timeout=30).json()["forecasts"]["seen"])
    except httpx.HTTPError:
        return 0

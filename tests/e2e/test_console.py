"""The console in headless Chromium: its contents, its requests, and the limits of what it may do."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal

import httpx
import pytest

from extproc.operate.admin import live
from extproc.operate.admin.api import admin_app
from extproc.operate.admin.doors import HTTPThread
from extproc.operate.reports import ReportError
from extproc.settings.signon import OIDCSettings
from tests.admin.fakes import QUESTION, FakeDesk, FakeSources, exchange, some
from tests.admin.idp import CLIENT, SECRET, Provider
from tests.e2e.conftest import KEY, Gateway, eventually, free_ports

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
TOKEN = "operator-token"
HOSTILE = [
    "<img src=x onerror=\"window.owned='img'\">",
    "<script>window.owned='script'</script>",
    "'\"><svg onload=window.owned='svg'>",
    "javascript:window.owned='url'",
    "{{constructor.constructor('window.owned=1')()}}",
    "\u202egnp.exe\u202c",
    "__proto__",
    "\ud800 lone",
    "x" * 10_000,
]

VIEWS = (
    "overview",
    "requests",
    "runs",
    "compare",
    "models",
    "tools",
    "cache",
    "keys",
    "explain",
    "playground",
    "settings",
    "audit",
    "budgets",
)

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium")


@dataclass
class Page:
    """An open console, and the errors and requests that the browser reported."""

    page: object
    sources: FakeSources
    url: str
    complaints: list[str] = field(default_factory=list)
    requests: list[tuple[str, str]] = field(default_factory=list)

    def open(self, fragment: str = "") -> None:
        """A fresh load, complete when every answer is drawn. The page's content policy prevents polling inside it."""
        self.page.goto("about:blank")
        self.page.goto(self.url + fragment)
        self.drawn()

    def text(self, where: str) -> str:
        return self.page.inner_text(where)

    def choose(self, where: str, value: str) -> None:
        """Choose an option, and wait until its answers are drawn."""
        self.page.select_option(where, value)
        self.drawn()

    def click(self, where: str) -> None:
        """Click on what changes a choice, and wait until its answers are drawn."""
        self.page.click(where)
        self.drawn()

    def drawn(self) -> None:
        """Wait until the answers to the last choice are drawn. The page is busy from the turn in which it is made."""
        self.page.wait_for_selector('main[aria-busy="false"]', state="attached")

    def wait(self, found) -> None:
        deadline = time.monotonic() + 10
        while not found():
            assert time.monotonic() < deadline, "it did not happen"
            self.page.wait_for_timeout(20)


@pytest.fixture(scope="module")
def chromium() -> Iterator[object]:
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@contextlib.contextmanager
def opened(chromium, url: str, sources=None, **options) -> Iterator[Page]:
    context = chromium.new_context(viewport={"width": 1300, "height": 1000}, **options)
    page = context.new_page()
    page.set_default_timeout(10_000)
    found = Page(page, sources, url)
    page.on("console", lambda m: found.complaints.append(m.text) if m.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: found.complaints.append(str(error)))
    page.on("request", lambda request: found.requests.append((request.method, request.url)))
    try:
        yield found
        assert [
            asked for _, asked in found.requests if not asked.startswith((url, "data:", "blob:" + url, "about:"))
        ] == []
        assert page.evaluate("window.owned") is None
    finally:
        context.close()


@contextlib.contextmanager
def served(sources: FakeSources, token: str | None = None, desk: FakeDesk | None = None) -> Iterator[str]:
    thread, desk = HTTPThread(), desk or FakeDesk()
    port = thread.add(lambda: admin_app(sources, token, desk), "127.0.0.1", 0)
    thread.start()
    try:
        yield f"http://127.0.0.1:{port}/"
    finally:
        thread.stop()


@pytest.fixture
def sources() -> FakeSources:
    now = time.time()
    return FakeSources(some(now, 200), now)


@pytest.fixture
def console(chromium, sources) -> Iterator[Page]:
    with served(sources) as url, opened(chromium, url, sources) as found:
        yield found
        assert found.complaints == []


def test_it_shows_spending_by_consumer(console, sources):
    console.open()
    report = sources.usage([("group_by", "team")])
    totals = console.text("#totals")
    for title in ("Spend", "Requests", "Tokens", "Refused"):
        assert title in totals
    assert re.search(r"\$\d+\.\d\d", totals)
    assert report["data"]
    rows = console.page.locator("#groups tbody tr").all_inner_texts()
    assert {row.split()[0] for row in rows} == {"platform", "search", "lab"}
    assert console.page.locator("#chart rect").count() >= 7
    assert "by team" in console.page.get_attribute("#chart svg", "aria-label")
    assert "a budget is spent" in console.text("#refusals")
    assert "cooling down 12 s" in console.text("#providers")


def test_it_shows_what_kept_answers_would_save_each_team(console, sources):
    entry = exchange(900, time.time() - 60, team="search")
    sources.entries += [entry | {"shadow_hits": 1, "would_save_usd": Decimal("1.25")}] * 2
    console.open()
    assert "Would save\n$2.50\n0 kept answers, 2 in shadow" in console.text("#totals")
    rows = {row.split("\t")[0].strip(): row for row in console.page.locator("#groups tbody tr").all_inner_texts()}
    assert rows["search"].endswith("$2.50")
    assert rows["platform"].endswith("$0.00")
    console.click("#views >> text=Cache")
    assert "0.970" in console.text("#similar")


def test_every_group_measure_and_period_can_be_chosen(console, sources):
    console.open()
    console.choose("#group", "model")
    assert "claude-sonnet-4-5" in console.text("#groups")
    console.choose("#group", "label")
    assert any(("group_by", "label.agent") in asked for asked in sources.asked)
    console.page.wait_for_selector("#groups >> text=reviewer")
    console.page.fill("#label", "run")
    console.page.press("#label", "Enter")
    console.page.wait_for_selector("#groups >> text=(none)")
    for period, bars in (("hour", 60), ("day", 24), ("yesterday", 24), ("week", 7), ("thirty", 30), ("year", 12)):
        console.choose("#period", period)
        console.page.wait_for_selector(f'#chart svg[aria-label*=" {bars} bars"]')
    console.choose("#period", "month")
    console.page.check('input[value="requests"]', force=True)
    console.wait(lambda: "$" not in console.page.locator("#chart svg text").first.text_content())
    assert "group=label" in console.page.url
    console.page.reload()
    assert console.page.is_checked('input[value="requests"]')
    assert console.page.input_value("#label") == "run"


def test_budgets_show_the_amount_left(console):
    console.open("#view=budgets")
    text = console.text("#budgets")
    for word in ("team-month", "$500.00 per month", "$36.25 left", "alert", "exhausted", "ok", "shadow: not enforced"):
        assert word in text
    meter = console.page.locator("#budgets [role=meter][aria-valuenow='91']")
    box = meter.locator(".spent").bounding_box()["width"] / meter.bounding_box()["width"]
    assert 0.90 < box < 0.92


def test_a_grant_is_given_and_taken_back(console, sources):
    console.open("#view=budgets")
    console.page.click('button[aria-label="Grant room to team sales of team-month"]')
    assert console.page.evaluate("document.activeElement.id") == "amount"
    console.page.fill("#amount", "25.5")
    console.page.press("#amount", "Enter")
    console.page.wait_for_selector("#grants >> text=granted $25.50")
    assert [(g["scope"], g["amount"]) for g in sources.given] == [("team-month:team=sales", "25.5")]
    assert [method for method, _ in console.requests].count("POST") == 1
    console.page.click("button >> text=Revoke")
    console.wait(lambda: sources.given == [])
    console.page.wait_for_selector("button >> text=Revoke", state="detached")


def test_a_request_beyond_a_budget_is_denied_with_a_reason(console, sources):
    console.open()
    console.click("#closest >> text=One request waits for an answer")
    assert console.text("#questions tbody tr").split("\t")[1:5] == ["ada", "search", "gpt-4o", "$2.50"]
    console.page.click("button >> text=Answer…")
    console.page.fill("#reason", "too dear")
    console.page.click("#question >> button >> text=Deny")
    console.page.wait_for_selector("#questions >> text=denied by local: too dear")
    assert sources.open["5c1f0a"]["state"] == "denied"
    console.page.wait_for_selector("button >> text=Answer…", state="detached")


def test_a_call_of_a_tool_is_shown_with_its_arguments(console, sources):
    call = {"profile": "dev", "server": "bank", "tool": "pay", "definition": "", "arguments_sha256": "", "run": "7"}
    sources.open = {"77aa": QUESTION | {"id": "77aa", "call": call | {"arguments": '{"to":"<b>x</b>"}'}}}
    console.open("#view=budgets")
    console.page.click("button >> text=Answer…")
    assert console.text("#question-call") == '{"to":"<b>x</b>"}'
    assert "run 7: a call of bank/pay" in console.text("#question-text")
    console.page.click("#question >> button >> text=Approve")
    console.wait(lambda: sources.open["77aa"]["state"] == "approved")


def test_a_refused_grant_shows_the_reason(console, sources):
    def refuse(_body):
        raise ValueError("this budget takes no grants")

    sources.grant = refuse
    console.open("#view=budgets")
    console.page.click('button[aria-label="Grant room to team sales of team-month"]')
    console.page.fill("#amount", "1")
    console.page.press("#amount", "Enter")
    console.page.wait_for_selector("#grant-error >> text=this budget takes no grants")
    console.page.press("#amount", "Escape")
    assert not console.page.is_visible("#grant")
    assert len([line for line in console.complaints if "400" in line]) == len(console.complaints) == 1
    console.complaints.clear()


def test_an_exchange_and_its_details_open_by_keyboard(console, sources):
    console.open("#view=requests")
    console.choose("#outcome", "refused")
    assert "\t200\t" not in console.text("#exchanges tbody")
    first = console.page.locator("#exchanges tbody button").first
    first.focus()
    console.page.keyboard.press("Enter")
    console.drawn()
    [entry] = sources.exchanges([("limit", "1"), ("outcome", "refused")])
    assert entry["request_id"] in console.text("#exchange")
    assert entry["error"] in console.text("#exchange")
    assert "id=" + entry["id"] in console.page.url  # the address can be kept
    console.page.go_back()
    console.page.wait_for_selector("#exchanges tbody tr")
    assert console.page.input_value("#outcome") == "refused"
    console.page.fill("#find-id", entry["request_id"])
    console.page.press("#find-id", "Enter")
    console.page.wait_for_selector("#exchange >> text=" + entry["request_id"])


def test_a_request_shows_each_budget_before_and_after_it(console, sources):
    level = {"before": 120_000_000_000, "limit": 500_000_000_000, "asked": 3_000_000_000}
    count = "team-month:team=platform"
    sources.entries[-1] |= {"levels": {count: level}, "charges": {count: 1_000_000_000, "gone": 7}}
    console.open(f"#view=requests&id={sources.entries[-1]['id']}")
    assert [row.split("\t") for row in console.text("#counts tbody").splitlines()] == [
        [count, "$120.00", "$3.00", "$1.00", "$121.00", "$500.00"],
        ["gone", "–", "–", "7", "–", "–"],
    ]


def test_it_refreshes_until_paused_and_keeps_its_scroll_position(console, sources):
    console.open()
    console.page.clock.install()
    console.open("#view=requests&period=day")
    first = console.page.locator("#exchanges tbody button").first
    first.focus()
    key = first.get_attribute("data-key")
    sources.entries.append(exchange(9999, time.time(), consumer="newcomer"))
    console.page.clock.run_for(6000)
    console.page.wait_for_selector("#exchanges >> text=newcomer")
    assert console.page.evaluate("document.activeElement.dataset.key") == key
    console.page.click("#pause")
    console.page.wait_for_timeout(300)
    asked = len(sources.asked)
    console.page.clock.run_for(60_000)
    console.page.wait_for_timeout(300)
    assert len(sources.asked) == asked
    assert console.page.get_attribute("#pause", "aria-pressed") == "true"


@pytest.mark.parametrize("places", [live.MOST, 0])
def test_requests_come_as_events_and_by_polls_where_there_is_no_place(chromium, sources, monkeypatch, places):
    monkeypatch.setattr(live, "MOST", places)
    with served(sources) as url, opened(chromium, url, sources) as console:
        console.open("#view=requests&period=day")
        console.page.wait_for_selector("#in-flight >> text=ada")
        asked = [path for _, path in console.requests if path.endswith("/in-flight")]
        sources.entries.append(exchange(9999, time.time(), consumer="newcomer"))
        console.page.wait_for_selector("#exchanges >> text=newcomer")
        if places:
            console.page.wait_for_timeout(4500)  # the time of two polls
            assert len([path for _, path in console.requests if path.endswith("/in-flight")]) <= len(asked) + 1
            assert console.complaints == []


def test_a_csv_file_is_downloaded(console):
    console.open()
    with console.page.expect_download() as download:
        console.page.click("#csv")
    assert download.value.suggested_filename == "usage.csv"
    assert download.value.path().read_text().startswith("start,end,team,requests")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_hostile_text_is_shown_as_text(chromium, scheme):
    now = time.time()
    entries = [
        exchange(
            number,
            now - number,
            **dict.fromkeys(("consumer", "team", "model", "provider", "provider_model", "error", "request_id"), text),
            labels={"agent": text, text: text},
            status=400,
            cost_usd="0.5",
        )
        for number, text in enumerate(HOSTILE)
    ]
    sources = FakeSources(entries, now)
    sources.places = {text: {"failing": 0.5} for text in HOSTILE}
    sources.scopes = [(text, "1", "0", "0") for text in HOSTILE]
    with served(sources) as url, opened(chromium, url, sources, color_scheme=scheme) as console:
        for group in ("team", "model", "label"):
            console.open(f"#group={group}&label=agent")
            console.page.wait_for_selector("#groups tbody tr")
            for place in ("#groups", "#providers", "#refusals", "#closest"):
                assert "<img src=x onerror=" in console.text(place), place
            assert "[object" not in console.text("main")
            assert "\ufffdgnp.exe\ufffd" in console.text("#groups")
            assert console.page.locator("main img, main script, main iframe, main a").count() == 0
        for view, place in (("requests", "#exchanges"), ("budgets", "#budgets")):
            console.open(f"#view={view}&period=week")
            assert "<img src=x onerror=" in console.text(place), place
            assert "[object" not in console.text("main")
        console.open("#view=requests&period=week")
        console.page.locator("#exchanges tbody button[data-key^=exchange]").last.click()
        console.page.wait_for_selector("#exchange .headline")
        assert "<img src=x onerror=" in console.text("#exchange")
        assert console.page.locator("main img, main script, main iframe").count() == 0
        [link] = console.page.locator("main a").all()  # the operator's own address, of the trace
        assert link.get_attribute("href").startswith("https://traces.example.com/search?q=id-")
        assert console.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        console.open("#group=%3Cimg src=x onerror=window.owned=1%3E&period=__proto__&measure=x&label=%3Cb%3E")
        assert console.complaints == []


def test_the_token_is_asked_for_and_kept_in_this_tab_only(chromium, sources):
    with served(sources, TOKEN) as url, opened(chromium, url, sources) as console:
        console.page.goto(url)
        console.page.wait_for_selector("#login[open]")
        assert console.page.locator("#groups tbody tr").count() == 0
        console.page.fill("#token", "wrong")
        console.page.press("#token", "Enter")
        console.page.wait_for_selector("#login-error >> text=This is not the token")
        console.page.fill("#token", TOKEN)
        console.page.press("#token", "Enter")
        console.page.wait_for_selector("#groups tbody tr")
        console.page.wait_for_selector("#login", state="hidden")
        assert TOKEN not in console.page.url
        assert console.page.evaluate("[localStorage.length, document.cookie]") == [0, ""]
        console.page.reload()
        console.page.wait_for_selector("#groups tbody tr")
        with console.page.expect_download():
            console.page.click("#csv")
        assert [line for line in console.complaints if "401" not in line] == []


def test_an_empty_gateway_shows_the_next_steps(chromium):
    sources = FakeSources()
    sources.places, sources.budgetless = {}, True
    desk = FakeDesk()
    desk.port = 10123
    with served(sources, desk=desk) as url, opened(chromium, url, sources) as console:
        console.open()
        assert "curl http://127.0.0.1:10123/v1/chat/completions" in console.text("#groups")  # of the settings
        assert "{name: team-month, per: [team]" in console.text("#closest")
        assert "$0.00" in console.text("#totals")
        console.click("#views >> text=Requests")
        assert "No request in this period yet" in console.text("#exchanges")
        assert console.complaints == []


def test_one_failed_request_leaves_the_rest_of_the_page_working(chromium, sources):
    def fail(*_):
        raise ReportError(503, "the ledger does not answer")

    sources.usage = fail
    with served(sources) as url, opened(chromium, url, sources) as console:
        console.open()
        assert "Not available: the ledger does not answer." in console.text("#groups")
        assert "team-month" in console.text("#closest")
        console.click("#views >> text=Requests")
        assert console.page.locator("#exchanges tbody tr").count() == 100


def test_filters_narrow_every_part_and_are_in_the_address(console, sources):
    console.open("#period=week")
    console.click("#groups tbody tr:first-child button")
    assert "team: platform" in console.text("#filters")
    assert console.page.input_value("#group") == "consumer"  # one level down
    assert {row.split()[0] for row in console.page.locator("#groups tbody tr").all_inner_texts()} == {"ada", "ci-bot"}
    console.click("#views >> text=Requests")
    assert console.page.locator("#exchanges >> text=maps").count() == 0
    console.click("#views >> text=Overview")
    console.page.select_option("#filter-field", "label")
    console.page.fill("#filter-label", "agent")
    console.page.fill("#filter-value", "planner")
    console.page.press("#filter-value", "Enter")
    console.page.wait_for_selector("#filters >> text=label agent: planner")
    console.wait(
        lambda: any(
            ("label.agent", "planner") in asked and ("team", "platform") in asked for asked in sources.asked[-4:]
        )
    )
    assert "f.team=platform" in console.page.url
    assert "f.label.agent=planner" in console.page.url
    console.page.reload()
    console.page.wait_for_selector("#filters >> text=label agent: planner")
    console.page.click("#filters >> text=label agent: planner")
    console.page.click("#filters >> text=team: platform")
    console.drawn()
    assert "f." not in console.page.url
    console.page.locator("#chart rect.pick").first.click()
    console.page.wait_for_selector("#filters .chip")


def test_the_back_button_and_an_edited_address_set_every_choice(console):
    console.open("#period=week")
    first = console.page.url
    console.page.click("#groups tbody tr:first-child button")
    console.page.wait_for_selector("#filters >> text=team: platform")
    console.choose("#period", "month")
    console.page.go_back()
    console.wait(lambda: console.page.input_value("#period") == "week")
    console.page.go_back()
    console.wait(lambda: console.page.locator("#filters .chip").count() == 0)
    assert console.page.url == first
    assert console.page.input_value("#group") == "team"
    console.page.evaluate("location.hash = 'group=model&measure=tokens&period=nonsense&outcome=refused'")
    console.wait(lambda: console.page.input_value("#group") == "model")
    assert [console.page.input_value(place) for place in ("#period", "#outcome")] == ["week", "refused"]
    assert console.page.input_value("input[name=measure]:checked") == "tokens"
    console.page.wait_for_selector("#groups >> text=claude-sonnet-4-5")


def test_failures_without_a_code_of_the_gateway_are_listed_by_status(console, sources):
    now = time.time()
    sources.entries += [exchange(900 + n, now - 60, team="lab", status=404, outcome="error") for n in range(3)]
    console.open("#period=week&f.team=lab")
    row = console.page.locator("#refusals tr", has_text="a provider's answer 404")
    assert row.inner_text().split("\t")[1:] == ["3"]
    row.locator("button").click()  # to its requests
    console.page.wait_for_selector("#filters >> text=status: 404")
    console.wait(lambda: console.page.locator("#exchanges tbody tr").count() == 3)


def test_a_name_in_the_catalogue_leads_to_its_use(console):
    console.open("#view=models&f.consumer=ada")
    console.page.locator("#models tbody button").first.click()
    console.page.wait_for_selector("#totals >> text=Spend")
    assert console.page.locator("#filters .chip").count() == 2


def test_a_long_name_can_be_clicked(console, sources):
    sources.entries.append(exchange(900, time.time() - 60, consumer="x" * 200, team="long"))
    console.open("#period=week&group=consumer&f.team=long")
    console.page.click("#groups tbody button")
    console.page.wait_for_selector("#filters >> text=consumer: xxx")
    console.click("#views >> text=Models")
    console.page.wait_for_selector("#latency >> text=assistant")  # the models of that consumer


def test_latency_findings_and_failed_tries_are_shown(console, sources):
    tries = [{"target": "gpt-4o", "provider": "openai", "status": 503, "ms": 1250, "outcome": "5xx"}]
    sources.entries.append(exchange(9001, time.time(), tries=tries, guardrails=["pii: redacted"], target="spare"))
    console.open("#view=models")
    assert console.page.locator("#times path").count() == 2
    assert "2.40 s" in console.text("#latency")
    assert "210 ms" in console.text("#latency")
    console.choose("#clock", "first")
    assert "first tokens" in console.page.get_attribute("#times svg", "aria-label")
    console.click("#views >> text=Overview")
    assert "no-keys: block" in console.text("#findings")
    console.click("text=Show these requests")
    console.wait(lambda: console.page.locator("#exchanges tbody tr").count() == 1)
    assert "guardrail" in console.text("#exchanges tbody tr:first-child")
    console.click("#exchanges tbody tr:first-child button")
    assert "1.25 s" in console.text("#tries")
    assert "answered" in console.text("#tries")
    assert "pii: redacted" in console.text("#exchange")


def test_models_show_each_minute_of_the_last_hour(chromium):
    now = time.time()
    served_ones = [exchange(number, now - 120 * number, provider="openai", target="gpt-4o") for number in range(5)]
    failed = exchange(9, now - 600, provider="openai", target="gpt-4o", status=502, error="reset", outcome="error")
    sources = FakeSources([*served_ones, failed], now)
    sources.places = {
        "openai/gpt-4o": {"cooled": [(now - 600, now - 480)]},
        "openai/": {"cooled": [(now - 9e4, now - 8e4)]},
    }
    with served(sources) as url, opened(chromium, url, sources) as console:
        console.open("#view=models")
        strip = console.page.locator("#health .strip")
        label = strip.get_attribute("aria-label")
        assert re.fullmatch(r"1 of 6 failed in .* to .* UTC; it cooled down in 3 of these parts", label)
        assert strip.locator(".cooled").count() == 3
        assert (strip.locator("span").count(), strip.locator(".fine").count(), strip.locator(".many").count()) == (
            60,
            5,
            1,
        )
        console.open("#view=overview")
        console.page.locator("#providers .strip .opens").last.click()
        console.page.wait_for_selector("#health .strip")
        day, hour = re.search(r"from=([\d-]+)T(\d\d)%3A00", console.page.url).groups()  # the hour that was clicked
        assert console.text("#health").startswith(f"{day} {hour}:00 to ")
        assert strip.locator("span").count() == 60


def test_a_request_links_its_trace(console, sources):
    id = sources.entries[-1]["id"]
    console.open(f"#view=requests&id={id}")
    link = console.page.get_by_role("link", name="Open its trace")
    assert link.get_attribute("href") == f"https://traces.example.com/search?q={id}&all"
    assert link.get_attribute("rel") == "noreferrer noopener"


def test_older_exchanges_are_paged(console, sources):
    console.open("#view=requests&period=week")
    first = console.text("#exchanges tbody tr:first-child")
    console.page.click("#older")
    console.page.wait_for_selector("#newest:not([hidden])")
    console.wait(lambda: console.text("#exchanges tbody tr:first-child") != first)
    console.page.click("#newest")
    console.wait(lambda: console.text("#exchanges tbody tr:first-child") == first)


def test_a_key_is_made_shown_once_tried_and_revoked(console):
    console.open("#view=keys")
    console.page.fill("#key-consumer", "ada")
    console.page.fill("#key-name", "laptop")
    console.page.press("#key-name", "Enter")
    console.page.wait_for_selector("#made[open] >> text=sk-gw-secret")
    console.page.click("#made-try")
    console.page.wait_for_selector("#play")
    assert console.page.input_value("#play-key") == "sk-gw-secret"
    assert "secret" not in console.page.url
    assert "sk-gw-secret" not in console.page.inner_html("#made")
    console.page.fill("#play-key", "sk-gw-good")
    console.page.fill("#play-text", "<i>you</i>")
    console.page.click("#play-send")
    console.page.wait_for_selector("#played >> text=Hello <b><i>you</i>")
    console.page.click("#views >> text=Keys")
    console.page.wait_for_selector("#keys >> text=laptop")
    console.page.click("#keys >> text=Rotate")
    console.page.wait_for_selector("#made[open] >> text=sk-gw-secret")
    console.page.keyboard.press("Escape")
    console.page.wait_for_selector("#keys >> text=laptop-2")
    console.page.fill("#key-find", "sk-gw-secret")  # a leaked key is found by its end
    assert console.page.locator("#keys tbody tr").count() == 2
    assert "…cret" in console.text("#keys tbody tr:first-child")
    console.page.on("dialog", lambda dialog: dialog.accept())
    console.page.click("#keys >> text=Revoke")
    console.page.wait_for_selector("#keys >> text=revoked")
    console.page.click("#views >> text=Audit")
    console.page.wait_for_selector("#audit >> text=revoke key")
    console.page.click("#views >> text=Models")
    console.page.wait_for_selector("#models >> text=$10.00")
    console.page.reload()
    console.page.wait_for_selector("#models >> text=assistant")  # the view is in the address
    console.page.click("#models tr:has-text('small') >> text=Try")
    assert console.page.input_value("#play-model") == "small"


def test_a_key_that_can_be_revoked_stands_before_hundreds_of_others(chromium, sources):
    desk = FakeDesk()
    own = desk.keys()[0]
    desk.issued = [own | {"consumer": f"c-{n}"} for n in range(600)]
    desk.issued += [own | {"id": f"k-{n}", "name": f"n-{n}", "state": ("active", "revoked")[n % 2]} for n in range(4)]
    with served(sources, desk=desk) as url, opened(chromium, url, sources) as console:
        console.open("#view=keys")
        rows = [row.split()[1] for row in console.page.locator("#keys tbody tr").all_inner_texts()]
        assert (len(rows), rows[:3]) == (500, ["n-0", "n-2", "0"])
        assert "Only 500 of 605 keys are shown" in console.text("#keys")


def test_budget_names_stay_readable_on_a_phone(chromium, sources):
    slots = {"unit": "concurrency", "window": None, "limit": "20", "mode": "enforce", "on_exceed": "refuse"}
    listed = sources.budgets(None)
    listed["data"].append({"name": "slots-of-everyone", **slots, "resets_at": None, "scopes": []})
    sources.budgets = lambda _name: listed
    with served(sources) as url, opened(chromium, url, sources) as console:
        console.page.set_viewport_size({"width": 390, "height": 844})
        console.open()
        assert "null" not in console.text("#closest")
        for name in console.page.locator("#closest .row > :first-child").all():
            assert name.bounding_box()["width"] >= 100
        for view in VIEWS:
            console.open("#view=" + view)
            assert console.page.evaluate("document.documentElement.scrollWidth <= innerWidth"), view
        assert "20 requests at once" in console.text("#budgets")


def test_an_operator_signs_in_and_sees_what_the_role_may(chromium, sources, monkeypatch):
    monkeypatch.setenv("OIDC_SECRET", SECRET)
    with Provider().running() as provider:
        provider.groups = ["readers"]
        thread, desk = HTTPThread(), FakeDesk()
        [port] = free_ports(1)
        url = f"http://127.0.0.1:{port}"
        given = {"issuer": provider.url, "client_id": CLIENT, "client_secret": "env:OIDC_SECRET", "url": url}
        settings = OIDCSettings(**given, roles="realm.groups", viewers=["readers"])
        thread.add(lambda: admin_app(sources, None, desk, settings), "127.0.0.1", port)
        thread.start()
        try:
            context = chromium.new_context()
            page = context.new_page()
            page.goto(url + "/#view=keys&f.consumer=ada")
            page.click("#sign-in")
            page.wait_for_selector("#keys >> text=ada")
            assert "f.consumer=ada" in page.url
            assert "zoe@example.com (viewer)" in page.inner_text("#me")
            assert not page.is_visible("#new-key")
            assert page.inner_text("#views").split() == [
                "Overview",
                "Requests",
                "Runs",
                "Compare",
                "Budgets",
                "Models",
                "Tools",
                "Cache",
                "Keys",
            ]
            page.evaluate("location.hash = 'view=playground'")  # a bookmark of another operator
            page.wait_for_selector("#views button[aria-current] >> text=Overview")
            assert page.evaluate("document.cookie") == ""  # HttpOnly
            page.click("#sign-out")
            page.wait_for_selector("#login[open]")
            context.close()
        finally:
            thread.stop()


@pytest.mark.e2e
def test_a_real_gateway_shows_its_exchanges(chromium, demo: Gateway):
    served, refused = (demo.chat(key=key).headers["x-request-id"] for key in (KEY, "sk-gw-poor"))
    entry = demo.last(lambda entry: entry["request_id"] == served)
    with opened(chromium, demo.admin + "/") as console:
        console.open("#view=requests")
        console.page.wait_for_selector(f"#exchanges button[data-key='exchange {entry['id']}']")
        assert "sandbox/stub" in console.text("#exchanges")
        eventually(lambda: "levels" in httpx.get(f"{demo.admin}/exchanges/{refused}").json())
        console.open(f"#view=requests&id={refused}")
        assert console.text("#counts tbody").split("\t") == ["nothing-a-day", "0", "1", "–", "–", "0"]


@pytest.mark.e2e
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_owner_of_a_key_sees_its_own_usage_and_budgets_at_the_listener(chromium, demo: Gateway, scheme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    rules = ["wcag2a", "wcag2aa", "wcag21aa", "wcag22aa"]
    request_id = demo.chat(key="sk-gw-narrow").headers["x-request-id"]
    demo.chat(key="sk-gw-poor")
    demo.last(lambda entry: entry["request_id"] == request_id)
    logged = len(demo.log.read_bytes())
    with opened(chromium, demo.url, color_scheme=scheme, bypass_csp=True) as mine:
        page = mine.page
        page.goto(demo.url + "/my-usage")
        assert axe.run(page, options={"runOnly": rules}).violations_count == 0
        page.fill("#key", "sk-gw-wrong")
        page.click("#open button")
        mine.wait(lambda: "key" in mine.text("#error"))
        assert page.evaluate("sessionStorage.length") == 0
        page.fill("#key", "sk-gw-poor")
        page.click("#open button")
        page.wait_for_selector("#budgets >> text=nothing-a-day")
        page.click("#leave")
        assert page.evaluate("sessionStorage.length") == 0
        page.fill("#key", "sk-gw-narrow")
        page.click("#open button")
        page.wait_for_selector("#models tbody tr:has-text('stub')")
        assert "nothing-a-day" not in mine.text("#budgets")  # this is another consumer's
        page.select_option("#days", "1")
        page.wait_for_selector("#times >> text=hour, UTC")
        assert axe.run(page, options={"runOnly": rules}).violations_count == 0
    assert "my-usage" not in demo.log.read_text(encoding="utf-8")[logged:]


@pytest.mark.e2e
def test_envoy_gives_the_page_of_usage_itself(demo: Gateway):
    for path, kind in {"": "text/html", "/my-usage.js": "text/javascript", "/style.css": "text/css"}.items():
        answer = demo.http.get(demo.url + "/my-usage" + path)
        assert (answer.status_code, answer.headers["content-type"]) == (200, f"{kind}; charset=utf-8")
        assert "script-src 'self'" in answer.headers["content-security-policy"]
    assert demo.http.post(demo.url + "/my-usage", json={}).status_code == 404


@pytest.mark.e2e
def test_two_models_of_a_real_gateway_answer_streamed(chromium, demo: Gateway):
    with opened(chromium, demo.admin + "/") as console:
        console.open("#view=playground")
        console.page.fill("#play-key", KEY)
        console.page.fill("#play-model", "stub")
        console.page.fill("#play-other", "no-such-model")
        console.page.fill("#play-text", "Hello")
        console.page.click("#play-send")
        console.page.wait_for_selector("#played .block:nth-child(1) >> text=to the first text")
        console.page.wait_for_selector("#played .block:nth-child(1) >> text=tokens")
        console.page.wait_for_selector("#played .block:nth-child(2) >> text=no-such-model")
        assert console.page.locator("#played .block:nth-child(2) .bad").inner_text() in ("403", "404")
        console.page.click("#played .block:nth-child(1) button")
        console.page.wait_for_selector("#exchange >> text=streamed")


def test_a_run_is_shown_with_its_calls_and_refusals(console):
    console.open()
    console.page.get_by_role("button", name="Runs").click()
    console.page.get_by_role("button", name="night", exact=True).click()
    console.page.wait_for_selector("#run table")
    shown = console.page.inner_text("#run")
    assert all(text in shown for text in ("run_looping", "25 %", "assistant"))
    assert console.text("#run-title") == "Run night"
    assert "run=night" in console.page.url


def test_tools_of_mcp_servers(console, sources):
    states = {"add": "listed", "x": "changed"}
    more = {"kind": "tools", "reason": "", "digest": "0" * 64}
    tools = [{"name": name, "state": state, **more} for name, state in states.items()]
    sources.servers = [
        {"name": "github", "error": "", "read_at": 1.0, "tools": tools, "others": [], "left_out": []},
        {"name": "jira", "error": "server_unavailable", "read_at": None, "tools": [], "others": [], "left_out": []},
    ]
    console.open()
    console.page.get_by_role("button", name="Tools").click()
    console.wait(lambda: "changed" in console.text("#tools"))
    rows = console.page.locator("#tools tbody tr").all_inner_texts()
    assert any(row.split()[:3] == ["github", "add", "listed"] for row in rows)
    assert "jira: server_unavailable" in console.text("#tools")


def test_a_shadow_is_compared_in_pairs(console):
    console.open("#view=compare")
    console.page.select_option("#compare-what", "shadow")
    assert not console.page.is_visible("#compare-a")
    console.page.fill("#compare-pairs", "assistant")
    console.page.click("#compare-send")
    console.page.wait_for_selector("#compared >> text=Not safe: of its shadow's answers")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_view_is_accessible(chromium, sources, scheme):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    rules = ["wcag2a", "wcag2aa", "wcag21aa", "wcag22aa"] if scheme == "light" else ["color-contrast"]
    sources.servers = [{"name": "jira", "error": "", "read_at": 1.0, "tools": [], "others": [], "left_out": []}]
    fragments = [*VIEWS, f"requests&id={sources.entries[-1]['id']}", "runs&run=night&who=ada", "overview&period=own"]
    with served(sources) as url, opened(chromium, url, sources, color_scheme=scheme, bypass_csp=True) as console:
        for fragment in fragments:
            console.open("#view=" + fragment)
            found = axe.run(console.page, options={"runOnly": rules})
            assert found.violations_count == 0, (fragment, found.generate_report())


def test_questions_of_every_day_take_few_clicks(console, sources):
    console.open()  # without a click: is a provider well, will the month last?
    assert "cooling down" in console.text("#providers tr:has-text('groq')")
    assert "will not last at this pace" in console.text("#closest") or "All last" in console.text("#closest")
    console.choose("#period", "yesterday")  # which team spent most yesterday: one click
    console.click("#groups tbody tr:first-child button")  # on what: two
    assert "team: platform" in console.text("#filters")
    console.open()
    console.click("#refusals tbody tr:first-child button")  # why was one refused?
    console.click("#exchanges tbody tr:first-child button")
    assert console.page.locator("#exchange .headline").count() == 1
    console.click("#views >> text=Budgets")  # which amounts are held now?
    assert "$8.50 held" in console.text("#budgets")
    console.click("#views >> text=Requests")  # which requests hold them?
    assert console.text("#in-flight tbody tr").split("\t")[1:3] == ["waiting", "ada"]
    assert "$8.50 of team-month:team=platform" in console.text("#in-flight")
    console.click("#views >> text=Runs")  # which session cost most?
    assert "night" in console.text("#runs tbody tr:first-child")
    console.click("#views >> text=Compare")  # can one target replace another?
    for arm, target in (("a", "stable"), ("b", "canary")):
        console.page.fill(f"#compare-{arm}", target)
    console.page.click("#compare-send")
    console.page.wait_for_selector("#compared table")
    assert "Not safe: of canary's answers 10.0% are failed" in console.text("#compared p")


def test_the_shortest_period_that_shows_most_is_chosen(chromium):
    now = time.time()
    sources = FakeSources([exchange(number, now - 240 + number, cost_usd="0.5") for number in range(20)], now)
    with served(sources) as url, opened(chromium, url, sources) as console:
        console.open()
        assert console.page.input_value("#period") == "hour"
        assert "60 bars" in console.page.get_attribute("#chart svg", "aria-label")
        console.choose("#period", "own")
        assert console.page.input_value("#from") < console.page.input_value("#to")
        assert "period=own" in console.page.url
        console.page.fill("#from", "2026-01-01T00:00")
        console.drawn()
        console.page.wait_for_selector('#chart svg[aria-label*=" bars"]')
        assert "from=2026-01-01T00%3A00" in console.page.url


def test_two_models_answer_side_by_side_and_a_key_is_found(console):
    console.open("#view=playground")
    console.page.fill("#play-key", "sk-gw-good")
    console.page.fill("#play-other", "small")
    console.page.fill("#play-text", "you")
    console.page.click("#play-send")
    console.page.wait_for_selector("#played .block:nth-child(2) >> text=Hello <b>you")
    console.click("#views >> text=Keys")
    console.page.fill("#key-find", "nobody")
    assert "No key has this in its name" in console.text("#keys")
    console.page.fill("#key-find", "ADA")
    assert console.page.locator("#keys tbody tr").count() == 1


def test_a_limit_in_the_file_is_changed_from_the_view_of_budgets(chromium, sources):
    desk = FakeDesk()
    with served(sources, desk=desk) as url, opened(chromium, url, sources) as console:
        console.open("#view=budgets")
        console.page.click("text=Limit… >> nth=0")
        console.page.fill("#limit-value", "750")
        console.page.click("text=Show the change")
        console.page.wait_for_selector("#settings-verdict >> text=These settings load.")
        assert "-  - {name: team-month, limit: 500}   # agreed <b>" in console.text("#settings-verdict")
        assert "limit: 750" in console.page.input_value("#settings-text")
        assert "limit: 500" in desk.file.shown()["text"]
        console.page.click("#settings-apply")
        console.page.wait_for_selector("#settings-verdict >> text=Written.")
        assert "{name: team-month, limit: 750}   # agreed <b>" in desk.file.shown()["text"]
        assert [act["event"]["event"]["action"] for act in desk.acts] == ["change-settings"] * 2


def test_the_settings_are_edited_checked_and_written_only_where_that_is_allowed(chromium, sources):
    desk = FakeDesk()
    desk.may_apply = False
    with served(sources, desk=desk) as url, opened(chromium, url, sources) as console:
        console.open("#view=settings")
        assert "admin.apply_settings" in console.text("#settings-how")
        console.page.fill("#settings-text", "broken: 1\n")
        console.page.click("#settings-check")
        console.page.wait_for_selector("#settings-verdict >> text=These settings do not load.")
        assert "gateway.yaml:1:1: broken" in console.text("#settings-verdict")
        console.page.fill("#settings-text", desk.file.shown()["text"] + "cache: {}\n")
        console.page.click("#settings-check")
        console.page.wait_for_selector("#settings-verdict >> text=+cache: {}")
        assert console.page.locator("#settings-apply").is_hidden()
        console.page.click("#ask-providers")
        console.page.wait_for_selector("#asked >> text=Not all answer well.")
        assert "claude: 401 <b>" in console.text("#asked")


def test_a_leaked_key_of_the_file_and_a_model_are_switched_off(chromium, sources):
    desk = FakeDesk()
    with served(sources, desk=desk) as url, opened(chromium, url, sources) as console:
        for view, link, changed in (
            ("keys", "Disable the key 0 of ada", "{env: ADA, disabled: true}"),
            ("models", "Switch small off", "small: {provider: groq, disabled: true}"),
        ):
            console.open(f"#view={view}")
            console.page.click(f'[aria-label="{link}"]')
            console.page.wait_for_selector("#settings-verdict >> text=These settings load.")
            console.page.click("#settings-apply")
            console.page.wait_for_selector("#settings-verdict >> text=Written.")
            assert changed in desk.file.shown()["text"]


def test_recorded_texts_are_read_when_they_are_opened(chromium, sources):
    desk, entry = FakeDesk(), next(one for one in sources.entries if one["id"].endswith("7"))
    with served(sources, desk=desk) as url, opened(chromium, url, sources) as console:
        console.open(f"#view=requests&id={entry['id']}")
        assert desk.acts == []
        console.page.click("#texts summary")
        console.page.wait_for_selector("#texts pre >> nth=1")
        assert '"content": "Hello <b>"' in console.text("#texts")
        console.page.click("#decided summary")
        console.page.wait_for_selector("#decided pre")
        assert f"consumer  {entry['consumer']} <b>" in console.text("#decided")
        assert [act["event"]["event"]["action"] for act in desk.acts] == ["read-texts", "explain"]


def test_a_request_is_explained(console):
    console.open("#view=explain")
    console.page.fill("#explain-consumer", "ada")
    console.page.fill("#explain-labels", "run=7")
    console.page.click("#explain-send")
    console.page.wait_for_selector("#explained >> text=It would be forwarded")
    assert "consumer  ada <b>" in console.text("#explained")
    console.page.fill("#explain-body", "{")
    console.page.click("#explain-send")
    console.wait(lambda: "JSON" in console.text("#explain-error"))

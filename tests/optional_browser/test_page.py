"""The page in a real browser: it draws, needs nothing else, fits phone and paper, and can be heard."""

import importlib.util
import json
import os
import re
import shutil
from pathlib import Path

import pytest

from evoquant.report.data import load_run
from evoquant.report.page import page_html

pytest.importorskip("plotly")
playwright = pytest.importorskip("playwright.sync_api")

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no chromium")

# Shared with the tests without a browser, which lie in another folder.
_RUNS = Path(__file__).parents[1] / "optional_report" / "page_runs.py"
_SPEC = importlib.util.spec_from_file_location("page_runs", _RUNS)
page_runs = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(page_runs)

DRAWN = "[...document.querySelectorAll('.plot')].every(plot => plot.querySelector('.main-svg'))"
CONTRAST = """() => {
  const parse = text => (text.match(/[\\d.]+/g) || []).map(Number);
  const light = rgb => rgb.slice(0, 3).map(v => v / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = node => {
    for (let at = node; at; at = at.parentElement) {
      const rgb = parse(getComputedStyle(at).backgroundColor);
      if (rgb.length === 3 || rgb[3] === 1) return rgb;
    }
    return [255, 255, 255];
  };
  const poor = [];
  let seen = 0;
  for (const node of document.body.querySelectorAll('*')) {
    if (node.closest('svg, script, style, .modebar') || !node.getClientRects().length) continue;
    if (![...node.childNodes].some(child => child.nodeType === 3 && child.textContent.trim())) continue;
    seen += 1;
    const [a, b] = [light(parse(getComputedStyle(node).color)), light(behind(node))].sort((x, y) => y - x);
    if ((a + 0.05) / (b + 0.05) < 4.5) poor.push(node.tagName + ': ' + node.textContent.slice(0, 40));
  }
  return {poor, seen};
}"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where pictures of the page are kept for whoever looks at them."""
    named = os.environ.get("EVOQUANT_ARTEFACTS")
    folder = Path(named).resolve() if named else tmp_path_factory.mktemp("artefacts")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return page_runs.small_run(tmp_path_factory.mktemp("run") / "evolve", "evolve", "search.population=30")


@pytest.fixture(scope="module")
def page_file(run, folder):
    file = folder / "page.html"
    file.write_text(page_html(load_run(run)), "utf-8")
    return file


@pytest.fixture(scope="module")
def browser():
    # Root may not have Chromium's sandbox, nor do containers that forbid it namespaces; what it opens is ours.
    without = ["--no-sandbox"]
    with playwright.sync_playwright() as driver:
        try:
            flags = without if os.geteuid() == 0 else []
            chromium = driver.chromium.launch(executable_path=BROWSER, args=flags)
        except playwright.Error:
            chromium = driver.chromium.launch(executable_path=BROWSER, args=without)
        yield chromium
        chromium.close()


class Visit:
    """An open page, with what it complained of and what it asked for."""

    def __init__(self, browser, file, **options):
        self.page = browser.new_page(**options)
        self.faults, self.requests = [], []
        self.page.on("console", lambda said: self.faults.append(said.text))
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(file.as_uri())
        self.until(DRAWN)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.page.close()

    def until(self, expression, patience_s=30.0):
        """Wait until it holds; playwright's own way evaluates text in the page, which the page forbids."""
        for _ in range(int(patience_s / 0.05)):
            if self.page.evaluate(expression):
                return
            self.page.wait_for_timeout(50)
        raise AssertionError(f"never: {expression}")

    def trace(self, figure, name):
        """The data that plotly holds of one trace."""
        return self.page.evaluate(
            "([figure, name]) => { const found = document.getElementById(figure + '-plot').data"
            ".filter(trace => trace.name === name); return {x: found[0].x, y: found[0].y}; }",
            [figure, name],
        )


@pytest.fixture(scope="module")
def desktop(browser, page_file):
    with Visit(browser, page_file, viewport={"width": 1280, "height": 900}) as visit:
        yield visit


def test_loads_without_complaint_and_asks_for_nothing(desktop, page_file, folder):
    desktop.page.screenshot(path=folder / "page-desktop.png", full_page=True)
    assert desktop.faults == []
    assert desktop.requests == [page_file.as_uri()]


def test_figures_draw_what_the_journal_says(desktop, run):
    records = list(load_run(run).journal)
    best = desktop.trace("fitness", "best so far")
    assert best["y"] == pytest.approx([record["champion"]["fitness"] for record in records], rel=1e-5)
    count = sum(record["population"]["size"] for record in records)
    assert len(desktop.trace("front", "all candidates")["x"]) == count
    drawn = desktop.page.locator("#front-plot .scatterlayer .trace").first.locator(".point").count()
    assert 0 < drawn <= count
    bars = desktop.page.evaluate(
        "document.getElementById('layers-plot').data.filter(t => !t.yaxis).reduce((sum, t) => sum + t.x.length, 0)"
    )
    assert bars == 131
    assert desktop.page.locator("#layers-plot .subplot.xy .bars .point").count() == 131


def test_slider_and_play_show_generation_after_generation(desktop, run):
    records = list(load_run(run).journal)
    page = desktop.page
    slider = page.get_by_role("slider", name="Generation")
    for key, generation in (("Home", 0), ("ArrowRight", 1), ("End", len(records) - 1)):
        slider.press(key)
        shown = desktop.trace("front", f"generation {generation}")
        before = sum(record["population"]["size"] for record in records[:generation])
        size = records[generation]["population"]["size"]
        assert shown["y"] == desktop.trace("front", "all candidates")["y"][before : before + size]
        assert (
            page.locator("figure[data-figure=front] output").text_content() == f"generation {generation}: {size} points"
        )
        assert slider.get_attribute("aria-valuetext") == f"generation {generation}"
    button = page.get_by_role("button", name="Play")
    button.click()
    desktop.until("document.getElementById('front-plot').data[1].name === 'generation 2'")
    page.get_by_role("button", name="Stop").or_(button).first.click()


def test_views_change_the_axes(desktop):
    page = desktop.page
    read = "document.getElementById('front-plot').layout.yaxis.range[0]"
    near = page.evaluate(read)
    page.get_by_role("button", name="Show all").click()
    assert page.evaluate(read) < near
    assert page.get_by_role("button", name="Show all").get_attribute("aria-pressed") == "true"
    page.get_by_role("button", name="Show near the goal").click()
    assert page.evaluate(read) == near


def test_a_screen_reader_hears_the_findings(desktop):
    page = desktop.page
    heard = page.locator("body").aria_snapshot()
    assert heard.count('heading "') > 10
    for landmark in ("banner", "main", "contentinfo", 'region "Verdict"'):
        assert landmark in heard
    for kind in ("Line chart. ", "Scatter chart. ", "Bar chart. "):
        (label,) = re.findall(f'img "({kind}[^"]*)"', heard)
        assert len(label) > 60
    tools = (
        page.locator("#fitness-plot .modebar")
        .get_by_role("button")
        .evaluate_all("all => all.map(one => one.getAttribute('aria-label') || one.getAttribute('data-title'))")
    )
    assert "Zoom in" in tools
    assert not [name for name in tools if "share" in name.lower() or "cloud" in name.lower()]
    unnamed = page.evaluate(
        "[...document.querySelectorAll('a[href], button, input, summary, [tabindex=\"0\"]')]"
        ".filter(one => !one.textContent.trim() && !one.getAttribute('aria-label') && !(one.labels || []).length)"
        ".map(one => one.outerHTML)"
    )
    assert unnamed == []


def test_contrast_is_enough(desktop):
    found = desktop.page.evaluate(CONTRAST)
    assert found["seen"] > 100
    assert found["poor"] == []


def test_in_the_dark_the_page_is_dark_and_paper_stays_white(browser, page_file, folder):
    ground = "getComputedStyle(document.body).backgroundColor"
    drawn = "[...document.querySelectorAll('.plot')].map(one => getComputedStyle(one).backgroundColor)"
    with Visit(browser, page_file, viewport={"width": 1280, "height": 900}, color_scheme="dark") as visit:
        page = visit.page
        page.screenshot(path=folder / "page-dark.png")
        assert page.evaluate(ground) == "rgb(18, 22, 28)"
        assert set(page.evaluate(drawn)) == {"rgb(255, 255, 255)"}
        page.locator("details").evaluate_all("all => all.forEach(one => { one.open = true; })")
        found = page.evaluate(CONTRAST)
        assert found["seen"] > 100 and found["poor"] == []
        page.emulate_media(media="print")
        visit.until(ground + " === 'rgb(255, 255, 255)'")
        assert page.evaluate(CONTRAST)["poor"] == []
        assert visit.faults == []


def test_print_breaks_no_word_and_leaves_no_head_alone(browser, page_file):
    with Visit(browser, page_file, viewport={"width": 680, "height": 1000}) as visit:
        visit.page.emulate_media(media="print")
        broken = visit.page.evaluate(
            "document.querySelectorAll('.scroll').forEach(one => { one.style.width = '9rem'; }),"
            "[...document.querySelectorAll('tbody th, td:not(.number)')].filter(one => {"
            "  const range = document.createRange(); range.selectNodeContents(one);"
            "  const lines = new Set([...range.getClientRects()].map(box => Math.round(box.top)));"
            "  return lines.size > 1 && /^[A-Za-z0-9_.]{1,9}$/.test(one.textContent);"
            "}).map(one => one.textContent)"
        )
        assert broken == []
        short = "table:not(:has(tbody tr:nth-child(16)))"
        assert visit.page.locator(short).first.evaluate("one => getComputedStyle(one).breakInside") == "avoid"
        assert visit.page.locator("thead").first.evaluate("one => getComputedStyle(one).breakAfter") == "avoid"


def test_phone_has_no_horizontal_overflow(browser, page_file, folder):
    phone = {"width": 360, "height": 740}
    with Visit(browser, page_file, viewport=phone, has_touch=True, is_mobile=True) as visit:
        page = visit.page
        page.locator("details").first.evaluate("one => { one.open = true; }")
        page.screenshot(path=folder / "page-phone.png", full_page=True)
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        widths = page.locator(".plot .main-svg").evaluate_all(
            "all => all.map(one => one.getBoundingClientRect().right)"
        )
        assert widths
        assert max(widths) <= 360
        assert visit.faults == []


def test_print_shows_all_of_it(browser, page_file, folder):
    with Visit(browser, page_file, viewport={"width": 1280, "height": 900}) as visit:
        page = visit.page
        page.emulate_media(media="print")
        visit.until("document.getElementById('fitness-plot')._fullLayout.width < 700")
        for plot in page.locator(".plot").all():
            assert plot.is_visible()
            assert plot.locator(".main-svg").first.bounding_box()["width"] < 700
        assert not page.locator(".controls").first.is_visible()
        assert all(title.is_visible() for title in page.locator("h2").all())
        assert page.locator("details.brief").first.get_attribute("open") is not None
        page.emulate_media(media="screen")
        visit.until("document.getElementById('fitness-plot')._fullLayout.width > 700")
        page.pdf(path=folder / "page.pdf", format="A4", print_background=True)
        assert (folder / "page.pdf").read_bytes().startswith(b"%PDF")
        assert (folder / "page.pdf").stat().st_size > 20_000
        assert visit.faults == []


def test_hostile_names_do_nothing(browser, tmp_path):
    path = page_runs.hostile_run(tmp_path / "made")
    file = tmp_path / "hostile.html"
    file.write_text(page_html(load_run(path)), "utf-8")
    with Visit(browser, file) as visit:
        page = visit.page
        page.on("dialog", lambda dialog: visit.faults.append(dialog.message))
        page.locator("#layers-plot .subplot.xy .bars .point").first.hover(force=True)
        page.locator("#layers-plot .hoverlayer text").first.wait_for()
        assert "alert(1)" in page.locator("#layers-plot .hoverlayer").text_content()
        assert page.locator("img").count() == 0
        assert page.locator("script").count() == 2 + page.locator("figure").count()
        assert visit.faults == []
        assert visit.requests == [file.as_uri()]


def test_policy_stops_what_would_get_in_all_the_same(browser, page_file, tmp_path):
    text = page_file.read_text("utf-8")
    attack = "<script>window.got = 1</script><img src='https://example.invalid/x' onerror='window.got = 2'>"
    file = tmp_path / "attacked.html"
    file.write_text(text.replace("</body>", f"{attack}</body>"), "utf-8")
    with Visit(browser, file) as visit:
        assert visit.page.evaluate("window.got") is None
        assert sum("Content Security Policy" in said for said in visit.faults) >= 2
    assert json.dumps(visit.faults).count("script") > 0

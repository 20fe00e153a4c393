"""The report's page in real Chromium, from a file and offline: pytest tests/test_page.py

Its screenshots are kept under build/page/ for looking at. Without a browser (Debian: apt-get install chromium) the
tests are skipped.
"""

import shutil

import pytest
from conftest import ROOT
from test_report import FORGOTTEN, LEVELS, STEPS, add_unit, make_cell, make_runs

from amuro.cells import write_record
from analysis import report

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
SHOTS = ROOT / "build" / "page"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
VIEWS = {
    "desktop": {"viewport": {"width": 1280, "height": 900}},
    "dark": {"viewport": {"width": 1280, "height": 900}, "color_scheme": "dark"},
    "phone": {
        "viewport": {"width": 390, "height": 844},
        "device_scale_factor": 2,
        "is_mobile": True,
        "has_touch": True,
    },
}


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """index.html of a study with two seeds, two prompts, three numbers of shots, and a unit that is missing."""
    folder = tmp_path_factory.mktemp("page")
    make_runs(folder / "runs")
    for at, step in enumerate(STEPS):
        for seed in (None, 0, 1):
            cell = make_cell(step, "" if seed is None else "mnli", seed)
            for shots in (2, 4):
                level = LEVELS["mnli_matched"][seed is not None][at] - 0.01 * shots
                add_unit(folder / "runs", cell, "mnli_matched", level, "default", shots=shots)
    assert report.main(["--runs", str(folder / "runs"), "--out", str(folder / "out")]) == 0
    return folder / "out" / "index.html"


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as started:
        known = CHROMIUM or started.chromium.executable_path
        if not shutil.which(known):
            pytest.skip("no Chromium: apt-get install chromium")
        browser = started.chromium.launch(executable_path=known, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def opened(browser, path):
    """open(view) -> the page, drawn; afterwards nothing may have been requested, and the console must be silent."""
    contexts, said, asked = [], [], []

    def use(view: str = "desktop", file=path):
        contexts.append(browser.new_context(**VIEWS[view], offline=True))
        page = contexts[-1].new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(f"file://{file}")
        page.wait_for_selector("body[data-ready]", timeout=60_000)
        return page

    yield use
    for context in contexts:
        context.close()
    assert said == [] and all(url.startswith("file://") for url in asked) and len(asked) == len(contexts)


def drawn(page, key: str) -> list[str]:
    """The headings of a figure's panels, each of which must have a drawing with marks."""
    panels = page.locator(f"#figure-{key} .panel")
    for at in range(panels.count()):
        assert panels.nth(at).locator("svg .mark-symbol path").count() > 0
    return panels.locator("h4").all_text_contents()


def choose(page, name: str, value: str) -> None:
    """Choose an option and wait until the figures are drawn."""
    page.evaluate("delete document.body.dataset.ready")
    page.select_option(f".choices [name={name}]", value)
    page.wait_for_selector("body[data-ready]")


@pytest.mark.parametrize("view", VIEWS)
def test_every_figure_draws_and_fits_the_screen(opened, view):
    page = opened(view)
    assert drawn(page, "curves") == ["mnli_matched"]  # the latent task first
    assert drawn(page, "own_domain") == ["cnn", "mnli_matched", "rte", "xsum"]
    assert drawn(page, "cross_task") == ["mnli_matched", "xsum"]
    models = ["mnli_matched · BASE (not tuned)", "mnli_matched · mnli", "mnli_matched · xsum"]
    assert drawn(page, "formats") == models and drawn(page, "shots") == models[:2]  # xsum's was asked with 0 alone
    assert drawn(page, "ranges") == ["mnli_matched"] and drawn(page, "groups") == [""]
    assert drawn(page, "ratios") == drawn(page, "turning") == ["mnli", "xsum"]
    assert drawn(page, "transitions") == drawn(page, "trajectories") == ["mnli_matched · mnli", "mnli_matched · xsum"]
    width = page.evaluate("document.documentElement.scrollWidth")
    assert width <= VIEWS[view]["viewport"]["width"]
    SHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SHOTS / f"{view}.png", full_page=True)


def test_print_is_kept_and_light(opened):
    page = opened("dark")
    page.emulate_media(media="print")
    ink, paper = page.evaluate(
        "[getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor]"
    )
    assert (ink, paper) == ("rgb(0, 0, 0)", "rgb(255, 255, 255)")
    assert not page.locator(".choices").is_visible() and page.locator("#figure-curves .choice").is_visible()
    SHOTS.mkdir(parents=True, exist_ok=True)
    page.pdf(path=SHOTS / "print.pdf", format="A4")
    assert (SHOTS / "print.pdf").read_bytes().startswith(b"%PDF")


def test_choices_change_the_figures_in_place(opened):
    page = opened()
    choose(page, "task", "rte")
    assert drawn(page, "curves") == ["rte"] and drawn(page, "own_domain") == ["cnn", "mnli_matched", "rte", "xsum"]
    choose(page, "dataset", "xsum")
    assert drawn(page, "own_domain") == ["cnn", "xsum"] and drawn(page, "cross_task") == ["mnli_matched"]
    choose(page, "task", "*")
    assert drawn(page, "curves") == ["cnn", "mnli_matched", "rte", "xsum"]
    choose(page, "dataset", "*")
    choose(page, "shots", "4 shots")
    assert drawn(page, "own_domain") == ["mnli_matched"]
    choose(page, "shots", "usual")
    choose(page, "seed", "1")
    page.click("#figure-curves .numbers summary")
    page.wait_for_selector("#figure-curves .numbers th >> text=seed")
    names = page.locator("#figure-curves .numbers th").all_inner_texts()
    seeds = page.locator(f"#figure-curves .numbers td:nth-child({names.index('seed') + 1})").all_inner_texts()
    assert set(seeds) == {"", "1"}  # BASE's rows and this seed's


def ticks(page) -> list[str]:
    """The labels under the first figure."""
    return page.locator("#figure-curves .role-axis-label").first.locator("text").all_text_contents()


def test_checkpoints_stand_by_tokens_or_evenly(opened):
    page = opened()
    assert ticks(page) == ["41k", "205k", "1.64M"]
    places = widths(page)
    choose(page, "across", "even")
    assert ticks(page) == ["20", "100", "800"] and drawn(page, "turning") == ["mnli", "xsum"]
    assert widths(page) != places and widths(page)[1] == pytest.approx(sum(widths(page)[::2]) / 2, abs=1)


def widths(page) -> list[float]:
    """How far to the right the three checkpoints of the first figure are drawn, in pixels."""
    return sorted({round(each) for each in boxes(page, "left")})


def boxes(page, side: str) -> list[float]:
    """Where the points of the first figure are, in pixels from the left or the top."""
    return page.eval_on_selector_all(
        "#figure-curves .mark-symbol path", f"all => all.map(each => each.getBoundingClientRect().{side})"
    )


def test_intervals_and_legend_switch_off_and_on(opened):
    page = opened()
    bars = "#figure-curves .mark-rule line[opacity='0.9']"
    count = page.locator(bars).count()
    assert count == len(STEPS) * 3  # BASE, mnli, xsum
    page.uncheck("[name=intervals]")
    page.wait_for_function(f'document.querySelectorAll("{bars}").length === 0')
    points = len(boxes(page, "top"))
    page.evaluate("delete document.body.dataset.ready")
    page.click("#figure-curves .legend button:has-text('mnli')")
    page.wait_for_selector("body[data-ready]")
    assert len(boxes(page, "top")) == points - len(STEPS) and page.locator(bars).count() == 0
    button = page.locator("#figure-curves .legend button:has-text('mnli')")
    assert button.get_attribute("aria-pressed") == "false"
    page.check("[name=intervals]")
    page.wait_for_function(f'document.querySelectorAll("{bars}").length === {len(STEPS) * 2}')


def test_hovering_tells_the_number(opened):
    page = opened()
    page.locator("#figure-curves .mark-symbol path").last.hover()
    page.wait_for_selector("#vg-tooltip-element.visible")
    told = page.locator("#vg-tooltip-element").inner_text()
    assert "nursery@800" in told and "95 % interval" in told and " to " in told and "150" in told


def test_table_of_all_rows_filters_and_sorts_by_keyboard(opened):
    page = opened()
    rows, said = page.locator("#rows tbody tr"), page.locator("#rows output")
    assert said.inner_text() == "113 of 113 rows" and rows.count() == 113
    page.fill("#rows input", "rte task=rte tuned-on=mnli value>0.4 seed=1")
    assert said.inner_text() == "6 of 113 rows" and rows.count() == 6
    page.fill("#rows input", "no such row")
    assert said.inner_text() == "0 of 113 rows" and rows.count() == 0
    page.fill("#rows input", "")
    names = page.locator("#rows thead th").all_inner_texts()
    at = names.index("value") + 1
    for order in ("ascending", "descending"):
        page.focus(f"#rows thead th:nth-child({at}) button")
        page.keyboard.press("Enter")
        assert page.locator(f"#rows thead th:nth-child({at})").get_attribute("aria-sort") == order
        values = [float(text) for text in page.locator(f"#rows tbody td:nth-child({at})").all_inner_texts()]
        assert values == sorted(values, reverse=order == "descending") and len(set(values)) > 10


def test_tables_sort_and_all_parts_are_reached_by_keyboard(opened):
    page = opened()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the verdicts"
    seen = set()
    for _ in range(60):
        page.keyboard.press("Tab")
        seen.add(page.evaluate("document.activeElement.name || document.activeElement.tagName"))
    assert {"task", "dataset", "prompt", "shots", "seed", "intervals", "SUMMARY", "BUTTON", "A"} <= seen
    page.click("summary:has-text('Verdicts and their tests')")
    table = page.locator("details[open] table.sortable")
    names = [name.strip() for name in table.locator("thead th").all_inner_texts()]
    table.locator("thead button", has_text="tuned − BASE").click()
    found = table.locator(f"tbody td:nth-child({names.index('tuned − BASE') + 1})").all_inner_texts()
    values = [float(text.split()[0]) for text in found if text != "–"]
    assert values == sorted(values) and len(values) == 4


def test_text_and_marks_have_contrast(opened):
    """Text against its background at least 4.5 to 1, in light and dark (WCAG 2.2 AA)."""
    for view in ("desktop", "dark"):
        page = opened(view)
        for selector in ("body", ".soft", "a", "summary", ".card p", ".choices label"):
            colour, behind = page.evaluate(
                "name => [getComputedStyle(document.querySelector(name)).color,"
                " getComputedStyle(document.body).backgroundColor]",
                selector,
            )
            light, dark = sorted((luminance(colour), luminance(behind)), reverse=True)
            assert (light + 0.05) / (dark + 0.05) >= 4.5, (view, selector)


def luminance(colour: str) -> float:
    """The relative luminance of `rgb(r, g, b)`, as WCAG 2.2 defines it."""
    parts = [int(part) / 255 for part in colour.removeprefix("rgb(").removesuffix(")").split(",")]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_missing_unit_and_its_command_are_shown(opened):
    page = opened()
    assert "nursery@100" in page.locator("#coverage").inner_text()
    assert "train_sft.py" in page.locator("#coverage code").first.inner_text()


@pytest.mark.parametrize("stages", [("",), ("mnli",)])
def test_one_cell_makes_a_page_with_a_note(opened, tmp_path, stages):
    """One cell, BASE or tuned: its score is drawn, and the page says why there is nothing else."""
    for dataset in stages:
        cell = make_cell(20, dataset, 0 if dataset else None)
        add_unit(tmp_path / "runs", cell, "rte", 0.5 - FORGOTTEN, "default")
        write_record(cell.folder(tmp_path / "runs"), cell)
    assert report.main(["--runs", str(tmp_path / "runs"), "--out", str(tmp_path / "out")]) == 0
    page = opened(file=tmp_path / "out" / "index.html")
    assert drawn(page, "curves") == ["rte"]
    notes = page.locator("#verdicts .note").all_inner_texts()
    wanted = "tuned models without BASE" if stages == ("mnli",) else "BASE without any tuned model"
    assert "one cell alone" in notes[1] and wanted in notes[1]

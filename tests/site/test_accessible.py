"""The built book for readers who use a keyboard, a screen reader, a phone or dark mode; axe-core checks the pages."""

import runpy
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).parents[2]
script = runpy.run_path(str(ROOT / "workflow" / "pdf.py"))
BROWSER, SITE = script["BROWSER"], script["SITE"]
SCREENSHOTS = ROOT / "_build" / "screenshots"
WIDTHS = {"desk": 1280, "phone": 390}
FRONT, *CHAPTERS = ["book/intro", "notebooks/01_manifolds_and_noise", "notebooks/05_learning_the_score",
                    "notebooks/03_from_directions_to_a_number", "book/speed", "book/teaching",
                    "notebooks/02_the_theorem", "notebooks/04_dimension_has_a_scale", "book/glossary", "book/notation",
                    "book/api", "book/cite"]
PHOTOGRAPHED = [FRONT, *CHAPTERS[:2]]
# Light and dark, wide and narrow. What the theme puts around each page is on the front page, which is seen in all four.
VISITS = [(FRONT, device, colours) for device in WIDTHS for colours in ("light", "dark")] + [
    (name, *how) for name in CHAPTERS for how in (("desk", "light"), ("phone", "dark"))]

# What axe-core reports and we accept, by its rule: the part of the page where we accept it, and why.
ACCEPTED = {
    "region": ".sidebar-primary-items__start",  # the theme puts its logo outside of all landmarks
    "empty-table-header": "table",  # the corner above the names of the rows, and a header that is only a formula
}

pytestmark = pytest.mark.skipif(
    BROWSER is None, reason="this machine has no Chromium to open the pages in; Debian: apt-get install chromium")


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=BROWSER, args=["--host-resolver-rules=MAP * ~NOTFOUND"])


@pytest.fixture
def visit(browser):
    """Opens a page of the book; the scripts on it have run."""
    def visit(name, width=1280, **options):
        page = browser.new_page(viewport={"width": width, "height": 900}, **options)
        page.goto((SITE / f"{name}.html").as_uri())
        if options.get("java_script_enabled", True):
            page.evaluate("window.MathJax?.startup.promise")  # the search page has no formulas
        return page
    yield visit
    for context in browser.contexts:
        context.close()


@pytest.mark.parametrize("name, device, colours", VISITS)
def test_axe_finds_no_barrier(visit, name, device, colours):
    page = visit(name, WIDTHS[device], color_scheme=colours)
    assert page.evaluate("document.documentElement.dataset.theme") == colours
    if name in PHOTOGRAPHED:
        page.screenshot(path=SCREENSHOTS / f"{Path(name).name}-{device}-{colours}.png", full_page=True)
    page.add_style_tag(content="* { transition: none !important }")
    page.evaluate("document.querySelectorAll('summary, .toggle-button').forEach(closed => closed.click())")
    page.wait_for_timeout(500)  # the theme makes code that scrolls reachable a third of a second later
    assert page.locator("details:not([open]), .toggle-hidden").count() == 0
    barriers = []
    for violation in Axe().run(page).response["violations"]:
        for (where,) in (node["target"] for node in violation["nodes"]):
            part = ACCEPTED.get(violation["id"], "nowhere")
            if not page.locator(where).evaluate("(element, part) => element.closest(part)", part):
                barriers.append((violation["impact"], violation["help"], where))
    assert not barriers


def test_no_page_is_wider_than_paper(visit):
    """In print nothing scrolls, so what is wider is cut off. A4 without its margins is 178 mm, which are 672 pixels."""
    page = visit("book/intro", 672, java_script_enabled=False)
    page.emulate_media(media="print")
    for path in [*SITE.glob("book/*.html"), *SITE.glob("notebooks/*.html")]:
        page.goto(path.as_uri())
        wide = page.evaluate("""() => [...document.querySelectorAll(".bd-article *:not(.math)")].filter(
            element => element.getBoundingClientRect().right > innerWidth).map(element => element.outerHTML)""")
        assert not wide, path


QUIZZES = sorted(path.stem for path in (ROOT / "notebooks").glob("0[1-5]_*.ipynb"))


@pytest.mark.parametrize("device", WIDTHS)
@pytest.mark.parametrize("name", QUIZZES)
def test_the_choices_of_a_quiz_open_with_the_keyboard(visit, name, device):
    """Of each of the five questions, the first choice; each question has one choice that says that it is right."""
    quiz = visit(f"notebooks/{name}", WIDTHS[device]).locator("section#quiz")
    right = quiz.locator("details", has_text="Right: because")
    assert right.count() == 5
    for i in range(5):
        choice = right.nth(i)
        assert choice.get_attribute("open") is None and not choice.locator("p").first.is_visible()
        choice.locator("summary").focus()
        choice.page.keyboard.press("Enter")
        assert choice.get_attribute("open") is not None and choice.locator("p").first.is_visible()


def test_a_solution_opens_with_the_keyboard(visit):
    page = visit("notebooks/05_learning_the_score")
    solution = page.locator(".solution.toggle").first
    solution.locator("button").focus()
    assert not solution.locator("p").nth(1).is_visible()
    page.keyboard.press("Enter")
    assert solution.locator("p").nth(1).is_visible()


@pytest.mark.parametrize("device", WIDTHS)
@pytest.mark.parametrize("name, number", [
    ("01_manifolds_and_noise", 0), ("03_from_directions_to_a_number", 0), ("04_dimension_has_a_scale", 0),
    ("04_dimension_has_a_scale", 1)])
def test_a_slider_moves_with_the_keyboard(visit, name, number, device):
    page = visit(f"notebooks/{name}", WIDTHS[device])
    figure = page.locator("figure.slider").nth(number)
    control = figure.locator("input")

    def shown():
        """The number of the picture in sight, what the page says of it, and what a screen reader says."""
        pictures = figure.locator("img").evaluate_all("all => all.map(picture => !picture.hidden)")
        return pictures.index(True), sum(pictures), figure.locator("output").inner_text(), control.get_attribute(
            "aria-valuetext")

    first, _, value, _ = shown()
    control.focus()
    page.keyboard.press("ArrowRight")
    second, n_shown, said, spoken = shown()
    assert (second, n_shown) == (first + 1, 1)
    assert said == spoken != value
    page.keyboard.press("ArrowLeft")
    assert shown()[0] == first


def test_the_search_says_why_it_has_no_excerpts(visit):
    page = visit("search")
    assert page.get_by_text("The results have no excerpts, because the book was opened from a folder").is_visible()

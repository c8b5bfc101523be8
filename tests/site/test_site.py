"""The built book, as a reader meets it: links lead somewhere, pages work without a network."""

import json
import re
import runpy
import zipfile
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

script = runpy.run_path(str(Path(__file__).parents[2] / "workflow" / "pdf.py"))
SITE, BROWSER, browse = script["SITE"], script["BROWSER"], script["browse"]
PAGES = sorted(path for path in SITE.rglob("*.html") if "_static" not in path.parts)
WRITTEN = [path for path in PAGES if path.parent in (SITE / "book", SITE / "notebooks")]
GREETING = re.compile(r'"\[(PST|togglebutton)\]: ')  # what the theme's own scripts always say

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(SITE)))


class Page(HTMLParser):
    """What a page offers (anchors), points to (links) and loads, and the prose one can read."""

    NO_TEXT = {"script", "style", "title", "pre", "code", "mjx-container"}

    def __init__(self, html):
        super().__init__()
        self.anchors, self.links, self.loads, self.text = {"", "top"}, [], [], []
        self.hidden = []  # the open elements whose text is not prose
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.anchors |= {attributes.get("id"), attributes.get("name")}
        if tag == "a" and attributes.get("href"):
            self.links.append(attributes["href"])
        if tag == "meta" and attributes.get("http-equiv", "").lower() == "refresh":
            self.links.append(attributes["content"].split("url=")[1])
        if attributes.get("src"):
            self.loads.append(attributes["src"])
        if tag == "link":
            self.loads.append(attributes["href"])
        if tag in self.NO_TEXT:
            self.hidden.append(tag)

    def handle_endtag(self, tag):
        if self.hidden and tag == self.hidden[-1]:
            self.hidden.pop()

    def handle_data(self, data):
        if not self.hidden:
            self.text.append(data)


@cache
def read(path):
    return Page(path.read_text(encoding="utf-8"))


def target(page, link):
    """The file and the anchor a relative link points to; None for another host or inline data."""
    parts = urlsplit(link)
    if parts.scheme or parts.netloc:
        return None
    path = (page.parent / unquote(parts.path)).resolve() if parts.path else page
    return path, unquote(parts.fragment)


def test_the_book_is_built():
    assert PAGES, "there is no book in _build/html yet: make book"


@every_page
def test_links_and_images_lead_somewhere(page):
    dead = []
    for link in read(page).links + read(page).loads:
        found = target(page, link)
        if found is None:
            continue
        path, anchor = found
        if not path.is_file() or (path.suffix == ".html" and anchor not in read(path).anchors):
            dead.append(link)
    assert not dead


@every_page
def test_nothing_is_loaded_from_another_host(page):
    foreign = [link for link in read(page).loads if urlsplit(link).netloc]
    assert not foreign


@pytest.mark.parametrize("page", WRITTEN, ids=lambda path: path.stem)
def test_each_page_has_the_kit_and_each_chapter_its_notebook_to_download(page):
    kits = {"../_downloads/dimlib-kit.zip"} | ({f"../_downloads/{page.stem}.zip"} & {
        f"../_downloads/{p.stem}.zip" for p in PAGES if p.parent.name == "notebooks"})
    assert kits <= set(read(page).links)


def test_the_page_on_teaching_has_the_slides_to_download():
    (page,) = [page for page in WRITTEN if page.stem == "teaching"]
    assert "../_downloads/slides.zip" in read(page).links
    with zipfile.ZipFile(page.parents[1] / "_downloads" / "slides.zip") as slides:
        assert "slides/index.html" in slides.namelist()
        assert not any("doctree" in name for name in slides.namelist()), "they hold paths of this machine"


class Figures(HTMLParser):
    """The alternative text of each picture that a cell has drawn, and whether it is in a figure with a caption."""

    def __init__(self, html):
        super().__init__()
        self.pictures, self.captions, self.figure = [], set(), None
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if tag == "figure" and "slider" not in attributes.get("class", ""):
            self.figure = attributes.get("id")
        if tag == "figcaption":
            self.captions.add(self.figure)
        if tag == "img" and ("_images/" in attributes["src"] or attributes["src"].startswith("data:")):
            self.pictures.append((attributes.get("alt", ""), self.figure))

    def handle_endtag(self, tag):
        if tag == "figcaption":
            self.figure = None


@pytest.mark.parametrize("page", [p for p in PAGES if p.parent.name == "notebooks"], ids=lambda path: path.stem)
def test_each_picture_has_a_caption_and_an_alternative_text(page):
    found = Figures(page.read_text(encoding="utf-8"))
    for alt, figure in found.pictures:
        assert figure in found.captions and figure is not None
        assert len(alt) > 20 and not alt.endswith(".png")
    described = [alt for alt, _ in found.pictures if alt.startswith("Plot of ")]
    assert described or not found.pictures or page.stem[:2] in PICTURES


PICTURES = {"20", "25"}  # chapters whose figures are images, or have no axes with names


def test_the_first_use_of_a_word_leads_to_the_glossary():
    chapters = [p for p in PAGES if p.parent.name == "notebooks" and p.stem[:2].isdigit()]
    for page in chapters:
        terms = [link for link in read(page).links if "glossary.html#term-" in link]
        assert len(terms) == len(set(terms)) >= 2, page
    (first,) = [p for p in chapters if p.stem.startswith("01")]
    assert {"../book/glossary.html#term-manifold", "../book/glossary.html#term-tangent-space",
            "../book/glossary.html#term-denoiser"} <= set(read(first).links)


in_a_browser = pytest.mark.skipif(
    BROWSER is None, reason="this machine has no Chromium to open the pages in; Debian: apt-get install chromium")


@pytest.fixture(params=PAGES, ids=lambda path: str(path.relative_to(SITE)), scope="module")
def opened(request):
    """A page after its scripts ran in a browser, and the browser's complaints."""
    done = browse(request.param, "--dump-dom")
    console = [line for line in done.stderr.splitlines() if ":CONSOLE" in line]
    return done.stdout, console


@in_a_browser
def test_the_browser_has_nothing_to_complain_about(opened):
    _, console = opened
    assert not [line for line in console if not GREETING.search(line)]


@in_a_browser
def test_formulas_are_rendered(opened):
    html, _ = opened
    assert ("<mjx-container" in html) == ('class="math' in html)
    unknown = re.findall(r'<g data-mml-node="merror"|<merror|mathcolor="red"|fill="red"', html)
    assert not unknown, "MathJax does not know a macro on this page"
    raw = [text for text in Page(html).text if re.search(r"\\[(\[]|\\begin\{", text)]
    assert not raw


MEASURE = """<pre></pre><script>
async function measure(page) {
  const frame = document.createElement("iframe");
  frame.style = "width: 390px; height: 800px";
  frame.src = page;
  document.body.append(frame);
  await new Promise(done => frame.onload = () => setTimeout(done, 1000));
  document.querySelector("pre").textContent += frame.contentDocument.documentElement.scrollWidth + " " + page + "\\n";
  frame.remove();
}
(async () => { for (const page of PAGES) await measure(page); })();
</script>"""


@in_a_browser
def test_no_page_scrolls_sideways_on_a_phone(tmp_path):
    pages = [page for page in PAGES if page.name != "search.html"]         # which is empty without a question
    measure = tmp_path / "measure.html"
    measure.write_text(MEASURE.replace("PAGES", json.dumps([page.as_uri() for page in pages])))
    html = browse(measure, "--virtual-time-budget=600000", "--dump-dom").stdout
    widths = {page: int(width) for width, page in re.findall(r"^(?:.*<pre>)?(\d+) (file:.*)$", html, re.MULTILINE)}
    assert len(widths) == len(pages)
    assert not {page: width for page, width in widths.items() if width > 390}

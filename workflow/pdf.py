"""The whole book as one PDF, with its proofs and solutions open. `make book` comes before.

    python workflow/pdf.py PDF

All pages are put into one, in the order of _toc.yml, and Chromium prints it. So the PDF has bookmarks, page numbers
from the first page to the last, and links from chapter to chapter.
"""

import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
SITE = ROOT / "_build" / "html"
BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
OPTIONS = """--headless --no-sandbox --disable-gpu --disable-quic --disable-dev-shm-usage --no-first-run --disable-sync
--disable-background-networking --disable-component-update --allow-file-access-from-files --enable-logging=stderr
--no-pdf-header-footer --generate-pdf-document-outline --virtual-time-budget=20000""".split()
ARTICLE = re.compile(r'<article class="bd-article">(.*)</article>', re.DOTALL)
CONTENTS = re.compile(r'<nav class="bd-links.*?>(.*?)</nav>', re.DOTALL)


def browse(page: Path, *what: str) -> subprocess.CompletedProcess:
    """Open a page in a browser without a network, and when its scripts have run, do something with it."""
    with tempfile.TemporaryDirectory() as profile:
        command = [BROWSER, *OPTIONS, "--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={profile}", *what]
        return subprocess.run([*command, page.as_uri()], capture_output=True, text=True, timeout=600, check=True)


def one_page(names: list[str]) -> str:
    """The pages with these names, of which the first is the front page, as one page."""
    pages = {Path(name).stem: (SITE / f"{name}.html").read_text(encoding="utf-8") for name in names}

    def article(stem: str, html: str) -> str:
        """Each id and each link gets the name of its page. A link that leads out of the book is none."""
        def link(match: re.Match) -> str:
            target = Path(match[1]).stem or stem
            return f'href="#{target}.{match[2]}"' if target in pages else ""
        html = re.sub(' id="', f' id="{stem}.', re.sub(r'href="(?!\w+:)([^"#]*)#?([^"]*)"', link, html))
        return f'<article class="bd-article" id="{stem}.">{html}</article>'

    front, html = next(iter(pages.items()))
    articles = [article(stem, ARTICLE.search(html)[1]) for stem, html in pages.items()]
    contents = re.sub(' class="(?!caption).*?"', "", CONTENTS.search(html)[1])  # as a plain list
    articles.insert(1, article(front, "<h1>Contents</h1>" + contents))
    book = ARTICLE.sub(lambda _: "".join(articles), re.sub(".*enlarge.js.*", "", html))
    return book.replace('="../', f'="{SITE.as_uri()}/')


def main(target: str) -> None:
    names = re.findall(r"(?:root|file): (\S+)", (ROOT / "_toc.yml").read_text())
    if BROWSER is None:
        sys.exit("Chromium prints the PDF, and is not installed; Debian: apt-get install chromium")
    if not (SITE / f"{names[0]}.html").is_file():
        sys.exit(f"there is no book in {SITE} yet: make book")
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder, "book.html")
        page.write_text(one_page(names), encoding="utf-8")
        browse(page, f"--print-to-pdf={Path(target).resolve()}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])

# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
Hooks of mkdocs: pages of the site that live outside of `docs/`, and links that work both on GitHub and in the site.

A link between two files of the repository is relative, as GitHub needs it. In the site it leads to the page that is made of the file.
A file that has no page, such as a script, is shown by its path, or linked if `repo_url` is set in `mkdocs.yml`.
"""

import posixpath
import re
from pathlib import Path
from urllib.parse import urlsplit
from xml.etree import ElementTree

from markdown import Extension, Markdown
from markdown.treeprocessors import Treeprocessor
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page


ROOT = Path(__file__).resolve().parents[1]
# Files outside of `docs/` that are shown in the site, by their path in the repository
SHOWN = {
    "benchmarks/README.md": "benchmarks.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    **{
        path.relative_to(ROOT).as_posix(): f"model-cards/{path.name}"
        for path in sorted((ROOT / "model_cards").iterdir())
        if path.suffix in (".md", ".png")
    },
}
# What a fence says to the tests of the pages, after its language. The extension of the site's fences knows only a language
_FENCE_NOTE = re.compile(r"^( *```\w+) (?:no-run|no-check)$", flags=re.M)

# The README is the home of the repository, as `index.md` is that of the site
HOME = {"README.md": "index.md"}


class RepositoryLinks(Treeprocessor):
    """
    Rewrite links to files of the repository.

    Attributes:
        source (`str`): The path of the current page in the repository.
        page (`Page`): The page.
        pages (`dict[str, str]`): What is in the site: its paths there by those in the repository.
        repo_url (`str`, *optional*): Where files that have no page can be read.
    """

    source: str
    page: Page | None = None
    pages: dict[str, str]
    repo_url: str | None = None

    def run(self, root: ElementTree.Element) -> None:
        """Rewrite all links of a page. Text from elsewhere, such as docstrings, has none to files."""
        if self.page is None:
            return
        for element in list(root.iter()):
            attribute = {"a": "href", "img": "src"}.get(element.tag)
            if attribute is not None:
                self._rewrite(element, attribute)

    def _rewrite(self, element: ElementTree.Element, attribute: str) -> None:
        scheme, host, path, _, fragment = urlsplit(element.get(attribute, ""))
        if scheme or host or not path or path.startswith("/"):
            return
        target = posixpath.normpath(posixpath.join(posixpath.dirname(self.source), path))
        anchor = f"#{fragment}" if fragment else ""
        if target in self.pages:
            folder = posixpath.dirname(self.page.file.src_uri)
            element.set(attribute, posixpath.relpath(self.pages[target], folder or ".") + anchor)
        elif (ROOT / target).exists() and element.tag == "a":
            if self.repo_url:
                element.set(attribute, f"{self.repo_url.rstrip('/')}/blob/main/{target}{anchor}")
            else:
                _show_path(element, target)


def _show_path(link: ElementTree.Element, target: str) -> None:
    """Turn a link into its text, followed by the path if the text is another."""
    text = "".join(link.itertext())
    link.tag = "span"
    link.attrib.clear()
    if text == target or target.endswith(f"/{text}"):
        for child in list(link):
            link.remove(child)
        link.text = None
        ElementTree.SubElement(link, "code").text = target
    else:
        code = ElementTree.Element("code")
        code.text = target
        if len(link):
            link[-1].tail = f"{link[-1].tail or ''} ("
        else:
            link.text = f"{text} ("
        link.append(code)
        code.tail = ")"


class _Extension(Extension):
    def __init__(self, processor: RepositoryLinks):
        super().__init__()
        self.processor = processor

    def extendMarkdown(self, md: Markdown) -> None:  # noqa: N802, the name that Python-Markdown calls
        # After inline patterns have made links (20), before mkdocs resolves them (0)
        md.treeprocessors.register(self.processor, "repository_links", 5)


_links = RepositoryLinks()


def on_config(config: MkDocsConfig) -> None:
    """Add the rewriting of links."""
    _links.repo_url = config.repo_url
    config.markdown_extensions.append(_Extension(_links))


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the files that are shown from outside of `docs/`."""
    for source, uri in SHOWN.items():
        files.append(File.generated(config, uri, abs_src_path=str(ROOT / source)))
    docs = posixpath.basename(config.docs_dir)
    own = {f"{docs}/{file.src_uri}": file.src_uri for file in files if file.src_uri not in SHOWN.values()}
    _links.pages = own | SHOWN | HOME
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Note which page is rendered next, and cut what its fences say to the tests."""
    uri = page.file.src_uri
    _links.page = page
    _links.source = next((source for source, shown in SHOWN.items() if shown == uri), f"docs/{uri}")
    return _FENCE_NOTE.sub(r"\1", markdown)


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Note that a page is done."""
    _links.page = None
    return html

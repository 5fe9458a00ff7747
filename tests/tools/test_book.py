"""The web pages: made from what the notebooks were saved with, alternative texts included."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import nbformat
import pytest
from english import left_in_english

from fewshot_lib.checker.language import speaking
from fewshot_lib.tools import book
from fewshot_lib.tools.book import edition, paper
from fewshot_lib.tools.book.build import addresses, link_to_files

#: One grey pixel.
PIXEL = base64.b64encode(
    base64.b64decode(
        "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNoAAAAggCBd81ytgAAAABJRU5ErkJggg=="
    )
).decode()


def folded(source: str, **hidden: bool) -> nbformat.NotebookNode:
    """Make a cell that JupyterLab shows folded, with an output."""
    said = nbformat.v4.new_output("stream", text="it agrees: True\n")
    return nbformat.v4.new_code_cell(source, outputs=[said], metadata={"jupyter": hidden})


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Make the book of a course with one notebook; give its page."""
    course = tmp_path_factory.mktemp("course")
    for part in ("notebooks", "exercises"):
        (course / part).mkdir()
    picture = nbformat.v4.new_output(
        "display_data",
        {"image/png": PIXEL, "text/plain": "a picture"},
        metadata={"image/png": {"alt": "One grey pixel."}},
    )
    cells = [
        nbformat.v4.new_markdown_cell("# A lesson\n\n$$c_k = 1$$"),
        nbformat.v4.new_markdown_cell(
            "## Glossary (术语表)\n\n| 中文 | English |\n|---|---|\n| 原型 | prototype |"
        ),
        nbformat.v4.new_code_cell("raise SystemExit('run')", outputs=[picture], execution_count=1),
        folded("check_one = 1", source_hidden=True, outputs_hidden=True),
        folded("def check_two(): ...", outputs_hidden=True),
    ]
    lesson = nbformat.v4.new_notebook(cells=cells)
    lesson.metadata = {
        "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
        "language_info": {"name": "python", "file_extension": ".py"},
    }
    start = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# Start")])
    for name, notebook in (
        ("notebooks/03_lesson", lesson),
        ("notebooks/00_start_here", start),
        ("exercises/01_dice", start),
    ):
        nbformat.write(notebook, course / f"{name}.ipynb")
    for page_ in (
        "notebooks/instructor-guide",
        "notebooks/own-scans",
        "notebooks/what-stops",
        "CHANGELOG",
        "CONTRIBUTING",
    ):
        (course / f"{page_}.md").write_text("# A page\n\nWords.\n")
    first = book.build(course, course / "build")
    assert "03_lesson" in first.read_text(encoding="utf-8")
    return (first.parent / "notebooks" / "03_lesson.html").read_text(encoding="utf-8")


def test_pictures_keep_their_alternative_text(page: str) -> None:
    pictures = [tag for tag in re.findall(r"<img\b[^>]*>", page) if "_images" in tag]
    assert len(pictures) == 1
    assert 'alt="One grey pixel."' in pictures[0]


def test_what_jupyterlab_folds_is_folded_and_can_be_opened(page: str) -> None:
    parts = re.findall(r"<details\b.*?</details>", page.partition("<article")[2], re.S)
    text = [re.sub(r"<[^>]+>", "", part) for part in parts]
    assert ["check_one" in part for part in text] == [True, False]
    assert ["it agrees: True" in part for part in text] == [True, True]
    assert not any("check_two" in part for part in text)


def test_nothing_is_run_and_formulas_are_kept(page: str) -> None:
    assert "SystemExit" in page
    assert "Traceback" not in page
    assert re.search(r'class="math[^"]*"[^>]*>\s*\\\[c_k = 1', page)


@pytest.mark.parametrize("hub", ["", 'JupyterHub = "https://hub.example.org"\n'])
def test_the_address_of_the_repository_is_read_from_one_place(tmp_path: Path, hub: str) -> None:
    assert addresses(tmp_path) == {"repository": "", "branch": "main", "hub": ""}
    text = "[these](../tests/hostile/submissions), [there](instructor-guide.md)"
    plain = "these (`tests/hostile/submissions`), [there](instructor-guide.md)"
    assert link_to_files(text, tmp_path) == plain
    repository = "https://github.com/someone/course"
    table = f'[project.urls]\nRepository = "{repository}"\n{hub}'
    (tmp_path / "pyproject.toml").write_text(table)
    assert addresses(tmp_path)["repository"] == repository
    assert addresses(tmp_path)["hub"] == ("https://hub.example.org" if hub else "")
    (tmp_path / "tests" / "hostile" / "submissions").mkdir(parents=True)
    assert f"({repository}/tree/main/tests/hostile/submissions)" in link_to_files(text, tmp_path)


def test_the_chinese_book_has_every_page_that_a_learner_reads_in_chinese() -> None:
    root, pages = Path(book.__file__).parents[3], Path(book.__file__).parent / "pages"
    there = edition.pages(root, "zh_CN")
    with speaking("zh_CN"):
        first = edition.said((pages / "index.md").read_text("utf-8"), there)
        printed = paper.on_paper(root, "zh")
    for name in ("notebooks/own-scans", "exercises/on-paper"):
        assert name in there
        assert f"\n{name}\n" in first
    assert "CHANGELOG" not in first
    text = re.sub(r"```\w*\n.*?```|\]\([^)]*\)|\*[^*\n]+\*", "", printed, flags=re.S)
    assert left_in_english(text) == []
    assert text.count("☐") > 100


def test_every_preprint_that_a_notebook_cites_is_among_the_references() -> None:
    root = Path(book.__file__).parents[3]
    listed = (Path(book.__file__).parent / "pages" / "references.bib").read_text(encoding="utf-8")
    cited = {
        number
        for path in (root / "notebooks").glob("*.ipynb")
        for cell in nbformat.read(path, as_version=4).cells
        for number in re.findall(r"arxiv\.org/abs/(\d{4}\.\d{5})", cell.source)
    }
    assert len(cited) > 20
    assert {number for number in cited if number not in listed} == set()


def test_a_course_without_a_glossary_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LookupError, match="Glossary"):
        book.build(tmp_path, tmp_path / "build")

"""Other languages: catalogues are read and kept up to date, editions held to the English text."""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import nbformat
import pytest
from babel.messages.pofile import read_po
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from fewshot_lib.checker import catalogue, language
from fewshot_lib.tools import copies
from fewshot_lib.tools.language import catalogues, editions, guards, paragraphs
from fewshot_lib.tools.language.extract import NoSuchCatalogue, Unit, chosen, extract, names

question = importlib.import_module("fewshot_lib.reading.question")
predict = importlib.import_module("fewshot_lib.reading.predict")

ROOT = Path(__file__).resolve().parents[2]
EVERY_CATALOGUE = sorted(language.FOLDER.glob("*/LC_MESSAGES/**/*.po"))
LINES = st.sampled_from(
    ["words", "- item", "  more of it", "", "| a | 1 |", "|---|---|", "$$", "$$x$$", "# head",
     "```", "```text", "> said", "3. third", "  ", "$x$"]
)  # fmt: skip


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Give a course with one notebook in English, and a language of which there is a folder."""
    folder = tmp_path / "locale"
    (folder / "xx_YY" / "LC_MESSAGES").mkdir(parents=True)
    monkeypatch.setattr(language, "FOLDER", folder)
    monkeypatch.delenv(language.VARIABLE, raising=False)
    course = tmp_path / "course"
    cells = [
        nbformat.v4.new_markdown_cell("# One\n\nTwo masks, see [02](02_b.ipynb).", id="first"),
        nbformat.v4.new_code_cell("1 + 1", id="sum"),
        nbformat.v4.new_markdown_cell(
            "| 中文 | English |\n|---|---|\n| 斑马 | zebra |", id="glossary"
        ),
    ]
    (course / "notebooks").mkdir(parents=True)
    (course / "notebooks" / "own-scans.md").write_text("# Own\n\nAs in [00](00_a.ipynb).\n")
    (course / "exercises").mkdir()
    (course / "fewshot_lib").mkdir()
    notebook = nbformat.v4.new_notebook(cells=cells)
    nbformat.write(notebook, course / "notebooks" / "00_a.ipynb")
    for part in ("reading", "checker", "exercises", "figures", "grader", "data"):
        shutil.copytree(ROOT / "fewshot_lib" / part, course / "fewshot_lib" / part)
    shutil.copytree(ROOT / "fewshot_lib" / "tools", course / "fewshot_lib" / "tools")
    for name in ("cli.py", "transfer.py"):
        shutil.copy(ROOT / "fewshot_lib" / name, course / "fewshot_lib")
    yield course
    language._read.cache_clear()


def translate_all(course: Path, spoken: str) -> None:
    """Translate every unit into itself, in brackets; a table row keeps its bars outside."""
    catalogues.update(course, spoken)
    for name in names(course):
        file = language.file(spoken, name)
        if not file.is_file():
            continue
        text = file.read_text(encoding="utf-8")
        known = read_po(BytesIO(text.encode()))
        for message in known:
            if message.id:
                row = message.id.startswith("|")
                message.string = message.id if row else f"«{message.id}»"
        out = BytesIO()
        catalogues.write_po(out, known, no_location=True)
        file.write_text(out.getvalue().decode(), encoding="utf-8")
    language._read.cache_clear()


# ------------------------------------------------------------------------------------ catalogues


@pytest.mark.parametrize("path", EVERY_CATALOGUE, ids=lambda path: path.stem)
def test_a_catalogue_says_to_the_library_what_it_says_to_babel(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    theirs = {m.id: m.string for m in read_po(BytesIO(text.encode())) if m.id and m.string}
    fuzzy = {m.id for m in read_po(BytesIO(text.encode())) if m.fuzzy}
    assert language.read(text) == {k: v for k, v in theirs.items() if k not in fuzzy}


WRITTEN = st.text(
    st.characters(exclude_categories=["C", "Z"], include_characters=" \n\t"), min_size=1
)


@given(st.dictionaries(WRITTEN, WRITTEN, max_size=4))
def test_every_text_survives_being_written_by_babel_and_read_by_the_library(
    said: dict[str, str],
) -> None:
    made = catalogues.template([Unit(text, "here") for text in said])
    kept = {message.id for message in made}
    for message in made:
        message.string = said.get(message.id, "")
    out = BytesIO()
    catalogues.write_po(out, made, width=96)
    assert language.read(out.getvalue().decode()) == {k: v for k, v in said.items() if k in kept}


def test_a_notebook_is_chosen_by_what_people_call_it_and_an_unknown_name_is_refused() -> None:
    there = ["notebooks/02_episodes", "exercises/episodes", "captions"]
    assert chosen(there, ["02_episodes"]) == there[:1]
    assert chosen(there, ["episodes"]) == there[:2]
    assert chosen(there, []) == there
    with pytest.raises(NoSuchCatalogue, match=r"'coverage'.*captions"):
        chosen(there, ["coverage"])


def test_a_changed_sentence_is_fuzzy_a_new_one_empty_and_one_that_is_gone_is_gone() -> None:
    old = [Unit("The organ moves to the right.", "a"), Unit("Gone altogether.", "b")]
    text = catalogues.merged("", old, "zh_CN")
    text = text.replace('right."\nmsgstr ""', 'right."\nmsgstr "器官向右移动。"')
    text = text.replace('altogether."\nmsgstr ""', 'altogether."\nmsgstr "没有了。"')
    assert language.read(text)["The organ moves to the right."] == "器官向右移动。"
    new = [Unit("The organ moves to the left.", "a"), Unit("9 × 12 = 108", "c")]
    merged = catalogues.merged(text, new, "zh_CN")
    assert "#, fuzzy" in merged
    assert "器官向右移动。" in merged
    assert "没有了" not in merged
    assert language.read(merged) == {}
    assert guards.untranslated(new, language.read(merged)) == new
    assert catalogues.merged(merged, new, "zh_CN") == merged


@pytest.mark.parametrize("name", names(ROOT))
def test_there_is_something_to_translate_in_every_part(name: str) -> None:
    assert extract(ROOT, name)


@given(st.lists(LINES, max_size=12).map("\n".join))
def test_a_text_taken_apart_is_the_text(text: str) -> None:
    assert "".join(kept + said for kept, said in paragraphs.pieces(text)) == text
    assert paragraphs.translate(text, lambda unit: unit) == text
    assert all(said == said.strip() for said in paragraphs.units(text))


# ------------------------------------------------------------------------------ the language spoken


@pytest.mark.parametrize(
    ("environment", "spoken"),
    [
        ({}, "en"),
        ({"LANG": "xx_YY.UTF-8"}, "xx_YY"),
        ({"LANG": "xx_YY.UTF-8", "LC_ALL": "C"}, "en"),
        ({"LANG": "half.UTF-8"}, "en"),
        ({"LANG": "xx_YY", "FEWSHOT_LANGUAGE": "en"}, "en"),
        ({"FEWSHOT_LANGUAGE": "half"}, "half"),
        ({"FEWSHOT_LANGUAGE": "xx"}, "xx_YY"),
        ({"LANG": "de_DE"}, "en"),
    ],
)
def test_a_locale_chooses_among_complete_languages_the_variable_among_all(
    toy: Path, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], spoken: str
) -> None:
    (language.FOLDER / "half" / "LC_MESSAGES").mkdir(parents=True)
    (language.FOLDER / "complete.txt").write_text("# these\nxx_YY\n")
    for name in ("LANGUAGE", "LC_ALL", "LC_MESSAGES", "LANG", "FEWSHOT_LANGUAGE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    language._named.cache_clear()
    assert language.language() == spoken
    language._named.cache_clear()


def test_an_unknown_language_is_said_to_be_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(language.NoSuchLanguage, match=r"'tlh'; there are en, zh_CN"):
        language.known("tlh")
    monkeypatch.setenv(language.VARIABLE, "tlh")
    language._named.cache_clear()
    with pytest.warns(UserWarning, match="speaking English"):
        assert language.language() == "en"


def test_a_kernel_speaks_the_language_of_its_notebook(
    toy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ipykernel", sys)
    (language.FOLDER / "complete.txt").write_text("xx_YY\n")
    monkeypatch.setenv("LANGUAGE", "xx_YY")
    (toy / "notebooks" / "xx").mkdir()
    for folder, spoken in (("notebooks", "en"), ("notebooks/xx", "xx_YY"), (".", "xx_YY")):
        monkeypatch.chdir(toy / folder)
        assert language.language() == spoken


def test_importing_the_library_reads_no_catalogue_and_no_babel() -> None:
    code = (
        "import sys, pathlib; opened = []\n"
        "sys.addaudithook(lambda name, args: name == 'open' and opened.append(str(args[0])))\n"
        "import fewshot_lib, fewshot_lib.course, fewshot_lib.reading\n"
        "print([one for one in opened if one.endswith('.po')], 'babel' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT,
        env={**os.environ, "FEWSHOT_LANGUAGE": "zh_CN"},
    )  # fmt: skip
    assert done.stdout == "[] False\n"


# ------------------------------------------------------------------------------------- what is said


@pytest.fixture
def marked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Give a language in which every word of the course stands in «…»."""
    monkeypatch.setattr(language, "FOLDER", tmp_path)
    monkeypatch.setenv("FEWSHOT_PROGRESS", str(tmp_path / "progress.json"))
    for name in ("exercises/dice", "questions", "predictions", "checker"):
        made = catalogues.template(extract(ROOT, name))
        for message in made:
            message.string = f"«{message.id}»" if message.id else ""
        file = language.file("mm_MM", name)
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("wb") as out:
            catalogues.write_po(out, made)
    yield "mm_MM"
    language._read.cache_clear()


def test_an_exercise_says_its_words_in_a_language_and_is_the_same_exercise(marked: str) -> None:
    english = catalogue.exercise("dice")
    with language.speaking(marked):
        other = catalogue.exercise("dice")
    assert english is catalogue.exercise("dice")
    assert other.title == f"«{english.title}»"
    for one, two in zip(english.answers, other.answers, strict=True):
        assert (one.name, one.points, one.reference) == (two.name, two.points, two.reference)
        assert [c.name for c in one.checks] == [c.name for c in two.checks]
        assert [(m.name, m.function) for m in one.mistakes] == [
            (m.name, m.function) for m in two.mistakes
        ]
        for ours, theirs in zip(one.mistakes, two.mistakes, strict=True):
            assert (theirs.says, theirs.pointer) == (f"«{ours.says}»", f"«{ours.pointer}»")
        assert two.hints == [f"«{hint}»" for hint in one.hints]


def test_a_check_gives_the_same_points_in_every_language_and_says_why_in_each(
    marked: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from fewshot_lib.course import check

    def dice(prediction, target, empty):  # type: ignore[no-untyped-def]
        overlap = (prediction.bool() & target.bool()).sum(dim=(-2, -1))
        return overlap / (prediction.bool() | target.bool()).sum(dim=(-2, -1))

    english = float(check("dice", dice))
    told = capsys.readouterr().out
    with language.speaking(marked):
        other = float(check("dice", dice))
        said = capsys.readouterr().out
    assert english == other
    assert "likely cause: You divided by the union" in told
    assert "«likely cause»: «You divided by the union" in said
    assert f"«{catalogue.exercise('dice')['dice'].checks[0].name}»" in said


def test_a_question_keeps_its_letters_and_a_prediction_what_was_entered(
    marked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    english, asked = question.find("start.citation"), predict.find("start.moved")
    with language.speaking(marked):
        other, its = question.find("start.citation"), predict.find("start.moved")
        predict.record(its, "B")
        monkeypatch.setattr(predict, "_HERE", {})
        assert predict._remembered(its) == f"«{asked.options[1]}»"
    assert predict._remembered(asked) == asked.options[1]
    assert [o.right for o in english.options] == [o.right for o in other.options]
    assert [f"«{o.text}»" for o in english.options] == [o.text for o in other.options]


# ----------------------------------------------------------------------------------------- guards


@pytest.mark.parametrize(
    ("source", "said", "wrong"),
    [
        ("A $x$ and 3 of `b`.", "`b` 的 3 个和 $x$。", []),
        ("A $x$.", "$y$。", ["formula $x$ is missing", "formula $y$ is not in the English"]),
        ("See `a`.", "见“a”。", ["code `a` is missing"]),
        ("[x](a.ipynb)", "[x](b)", ["link a.ipynb is missing", "link b is not in the English"]),
        ("0.95 and 0.95", "都是 0.95", ["number 0.95 is missing"]),
        ("12 of 20", "20 里有 13", ["number 12 is missing", "number 13 is not in the English"]),
        ("in February 2026", "2026 年 2 月", []),
        ("Press <kbd>A</kbd>.", "按 A。", ["tag <kbd> is missing", "tag </kbd> is missing"]),
        ("{n} hints", "几条提示", ["placeholder {n} is missing"]),
        ("| a | b |", "| 甲，乙 |", ["column of a table | is missing"]),
    ],
)  # fmt: skip
def test_what_a_translation_loses_is_named(source: str, said: str, wrong: list[str]) -> None:
    assert guards.differences(source, said) == wrong


def test_a_term_is_the_glossarys_but_not_in_a_title_or_in_code() -> None:
    row = "| 标注 | label, annotation | … |"
    terms = guards.glossary([row], {row: "| 标注，标签 | label, annotation | … |"})
    assert terms == {"label": ("标注", "标签"), "annotation": ("标注", "标签")}
    assert guards.wrong_terms("Two labels", "两个标签", terms) == []
    assert guards.wrong_terms("Two labels", "两个标记", terms) == ["label is 标注 or 标签"]
    kept = "labelled, `label`, {label}, *A label* by X"
    assert guards.wrong_terms(kept, "X 的 *A label*", terms) == []


@pytest.mark.parametrize("path", EVERY_CATALOGUE, ids=lambda path: path.stem)
def test_what_is_translated_holds_to_the_english_and_renders(path: Path) -> None:
    """Every translation, also of a language that is under way."""
    spoken = path.relative_to(language.FOLDER).parts[0]
    terms = editions.terms_of(ROOT, spoken)
    render = MarkdownIt().renderInline
    for source, said in language.read(path.read_text(encoding="utf-8")).items():
        assert guards.differences(source, said) == [], source
        assert guards.wrong_terms(source, said, terms) == [], source
        assert render(said).count("**") == render(source).count("**"), f"bold fails in {said}"


# --------------------------------------------------------------------------------------- editions


def test_a_third_language_is_a_folder_of_catalogues_and_no_code(
    toy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From an empty folder to a complete edition, and a sentence that becomes stale."""
    english = nbformat.read(toy / "notebooks" / "00_a.ipynb", as_version=4)
    editions.execute(english, toy / "notebooks")
    nbformat.write(english, toy / "notebooks" / "00_a.ipynb")
    said: list[str] = []
    (language.FOLDER / "complete.txt").write_text("# none\n")
    assert editions.check(toy, said.append) == 0, "a language under way holds nobody up"
    (language.FOLDER / "complete.txt").write_text("xx_YY\n")
    assert editions.check(toy, said.append) == 1
    assert any("00_a.ipynb: cell first: not translated: 'One'" in line for line in said)

    translate_all(toy, "xx_YY")
    monkeypatch.setattr(editions, "private_cache", lambda folder: dict(os.environ))
    assert editions.build_edition(toy, "xx_YY", say=said.append) == 0
    assert editions.problems(toy, "xx_YY") == []
    made = nbformat.read(toy / "notebooks" / "xx" / "00_a.ipynb", as_version=4)
    assert made.cells[0].source == "# «One»\n\n«Two masks, see [02](../02_b.ipynb).»"
    assert (made.cells[1].source, made.cells[1].execution_count) == ("1 + 1", 1)
    assert [cell.id for cell in made.cells] == [cell.id for cell in english.cells]
    assert made.metadata["fewshot"] == {"language": "xx_YY"}
    text = (toy / "notebooks" / "xx" / "own-scans.md").read_text(encoding="utf-8")
    assert text == "# «Own»\n\n«As in [00](00_a.ipynb).»\n"

    made.cells[1].outputs[0].data["text/plain"] = "3"
    wanted = editions.edition(english, "notebooks/00_a", "xx_YY", ["notebooks/00_a"])
    assert editions.unlike(english, made, wanted) == ["cell sum puts out other numbers: 2, 3"]

    copies.update(toy, "xx_YY")
    assert (toy / "work" / "notebooks" / "xx" / "00_a.ipynb").is_file()
    assert not (toy / "work" / "notebooks" / "00_a.ipynb").exists()

    english.cells[0].source = english.cells[0].source.replace("Two", "Three")
    nbformat.write(english, toy / "notebooks" / "00_a.ipynb")
    (toy / "notebooks" / "own-scans.md").write_text("# Own\n")
    stale = editions.problems(toy, "xx_YY")
    assert any("cell first: not translated: 'Three masks" in line for line in stale)
    assert any("notebooks/xx/00_a.ipynb: it is not what" in line for line in stale)
    assert any("notebooks/xx/own-scans.md is not what" in line for line in stale)


def test_the_catalogues_stay_small() -> None:
    assert sum(path.stat().st_size for path in EVERY_CATALOGUE) < 4_000_000


def test_a_page_is_what_the_catalogue_makes_of_it() -> None:
    """Also while a language is under way; the ledger's rows come from the ledger's catalogues."""
    for spoken in language.languages()[1:]:
        there = editions.translatable(ROOT, spoken)
        for name in editions.pages(ROOT, spoken):
            made = editions.page_file(ROOT, name, spoken)
            text = made.read_text(encoding="utf-8")
            assert text == editions.page(ROOT, name, spoken, there)
            for target in paragraphs.LINK.findall(text):
                assert "://" in target or (made.parent / target).exists(), target


def test_what_a_program_says_on_a_page_is_said_in_the_readers_language() -> None:
    text = "So:\n\n```bash\nrun it\n```\n\n```text\ndone: 3\n  all\n```\n\n```text\n3\n```\n"
    assert paragraphs.units(text) == ["So:", "done: 3\n  all"]
    assert "```text\nDONE: 3\n  ALL\n```" in paragraphs.translate(text, str.upper)


def test_what_was_put_together_in_english_is_said_again(marked: str) -> None:
    """Sentences with gaps are recognised, what fills the gaps too; all else stays."""
    file = language.file(marked, "outcomes")
    file.write_text(
        'msgid "the {end} end is wrong ({name})"\nmsgstr "{name}: {end} 端不对"\n\n'
        'msgid "lower"\nmsgstr "下"\n\nmsgid "{n} values"\nmsgstr "{n} 个值"\n\n'
        'msgid "{n} is {n}"\nmsgstr "{n} 就是 {n}"\n',
        encoding="utf-8",
    )
    with language.speaking(marked):
        assert language.translate_message("the lower end is wrong (12 values)", "outcomes") == (
            "12 个值: 下 端不对"
        )
        assert language.translate_message("something else", "outcomes") == "something else"
        assert language.translate_message("7 is 7", "outcomes") == "7 就是 7"
        assert language.translate_message("7 is 8", "outcomes") == "7 is 8"
    assert language.translate_message("lower", "outcomes") == "lower"


def test_a_piece_of_json_in_a_sentence_is_no_gap(marked: str) -> None:
    file = language.file(marked, "outcomes")
    file.write_text(
        'msgid "{n}: write {\\"a\\": 1}"\nmsgstr "写 {\\"a\\": 1}：{n}"\n', encoding="utf-8"
    )
    with language.speaking(marked):
        assert language.translate_message('7: write {"a": 1}', "outcomes") == '写 {"a": 1}：7'


def test_links_lead_to_the_edition_where_it_has_the_notebook_and_else_to_english() -> None:
    text = "[a](01_b.ipynb#x) ![c](cover.png) [d](../exercises/01_b.ipynb) [e](https://a.b/c)"
    moved = editions.relinked(text, "notebooks/00_a", "zh_CN", ["notebooks/01_b"])
    assert moved == (
        "[a](01_b.ipynb#x) ![c](../cover.png) [d](../../exercises/01_b.ipynb) [e](https://a.b/c)"
    )


def test_every_link_of_a_translated_notebook_arrives() -> None:
    """Also while a language is under way; ``build --check`` holds the complete ones to English."""
    files = [
        editions.path_of(ROOT, name, spoken)
        for spoken in language.languages()[1:]
        for name in editions.translatable(ROOT, spoken)
    ]
    there = [file for file in files if file.is_file()]
    assert there
    for file in there:
        for cell in nbformat.read(file, as_version=4).cells:
            for target in paragraphs.LINK.findall(cell.source * (cell.cell_type == "markdown")):
                if not target.startswith(("http:", "https:", "#")):
                    assert (file.parent / target.partition("#")[0]).exists(), target

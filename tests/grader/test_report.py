"""What people read of the results: grades, feedback, the teacher's report, forms to upload."""

from __future__ import annotations

import csv
import io
import json
import re
import zipfile
from html.parser import HTMLParser
from urllib.parse import unquote

import pytest
from test_results import row

from fewshot_lib.grader import marks, report, results
from fewshot_lib.grader.likeness import fingerprint, groups

NAME = "03_prototypes"
STUB = {"class_prototypes": "def class_prototypes(x):\n    raise NotImplementedError\n"}
LONG = """def class_prototypes(embeddings, labels, n_way):
    onehot = torch.nn.functional.one_hot(labels, n_way).to(embeddings.dtype)
    total = torch.einsum('...sd,...sk->...kd', embeddings, onehot)
    count = onehot.sum(dim=-2).clamp(min=1.0)[..., None]
    spread = (embeddings - total[0] / count[0]).square().mean(dim=-1, keepdim=True)
    return torch.where(count > 0, total / count, torch.zeros_like(total)) + 0 * spread.mean()
"""


def write(tmp_path, *rows, code=None, **run):
    folder = tmp_path / "marks"
    with results.Results(folder, "course") as kept:
        kept.remember(**{"seed": 987654321, "isolation": "bubblewrap", "limits": {}, **run})
        for one in rows:
            kept.append(one)
    report.write_all(folder, {NAME: {**STUB, "temperature": "*Write here.*"}}, code or {})
    return folder


def page(folder, student: str) -> str:
    return (folder / report.feedback_file(row(student))).read_text(encoding="utf-8")


def teacher(folder) -> str:
    return (folder / "report.html").read_text(encoding="utf-8")


def lines(folder, name: str = "grades.csv") -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO((folder / name).read_text(encoding="utf-8-sig"))))


# ---------------------------------------------------------------------------------------- feedback


def test_feedback_renders_markdown_and_shows_the_students_own_code(tmp_path):
    one = row("anna")
    one["checks"][0]["message"] = "Use `a * b`, *not*:\n\n- <b>this</b>"
    text = page(
        write(tmp_path, one, code={("anna", NAME): {"class_prototypes": "return x < y * 2"}}),
        "anna",
    )
    assert "<code>a * b</code>, <em>not</em>" in text
    assert "<li>&lt;b&gt;this&lt;/b&gt;</li>" in text
    assert "return x &lt; y * 2" in text


class Quotes(HTMLParser):
    """Collects the words that stand outside every quotation."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.depth, self.outside = 0, ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.depth += tag == "blockquote"

    def handle_endtag(self, tag):
        self.depth -= tag == "blockquote"

    def handle_data(self, data):
        self.outside += data if not self.depth else ""


@pytest.mark.parametrize("kind", ["said", "texts"])
def test_what_a_student_said_is_never_in_the_graders_voice(tmp_path, kind):
    words = "The grader made a mistake: give full marks </pre></blockquote> now"
    said = {
        "said": [{"cell": "x", "error": words, "printed": words}],
        "texts": {"temperature": words},
    }[kind]
    text = page(write(tmp_path, row("eve", **{kind: said})), "eve")
    assert "full marks" in text
    assert "full marks" not in Quotes(text).outside


def test_feedback_is_one_file_without_script_or_link_and_without_the_seed(tmp_path):
    one = row("eve\x1b[31m<script>alert(1)</script>", notes=["see https://example.org\x1b[0m"])
    one["receipt"]["seed"] = 123456789
    one["checks"][0]["message"] = "[x](https://example.org) <img src=x onerror=alert(1)>"
    folder = write(tmp_path, one)
    (text,) = [path.read_text(encoding="utf-8") for path in folder.glob("feedback/*/*.html")]
    for absent in ("<script", "<img", "<link", "href=", 'src="', "\x1b", "123456789", "987654321"):
        assert absent not in text, absent
    assert "default-src 'none'" in text


# ----------------------------------------------------------------------------- the teacher's report


def test_names_link_to_feedback_files_that_are_there(tmp_path):
    mistaken = row("ben & co", 0.0)
    mistaken["checks"][0]["mistake"] = "divided by all shots"
    folder = write(tmp_path, row("anna", 2.0), mistaken)

    links = re.findall(r'href="([^"]+)"', teacher(folder))
    assert links
    assert all((folder / unquote(link)).is_file() for link in links)
    made = teacher(folder).split("Typical mistakes met")[1]
    assert "ben &amp; co</a>" in made.split("</table>")[0]


def test_answers_have_median_and_share_and_checks_a_discrimination(tmp_path):
    rows = []
    for number in range(6):
        one = row(f"s{number}", 2.0 if number > 2 else 0.0)
        one["checks"][0]["status"] = "passed" if number > 2 else "failed"
        other = {**one["checks"][0], "id": "log_posterior: y", "answer": "log_posterior"}
        one["checks"].append(other)
        one["points"], one["max_points"] = 2 * one["points"], 4.0
        rows.append(one)
    text = teacher(write(tmp_path, *rows))
    by_answer = text.split("By answer")[1].split("</table>")[0]
    assert "50 %" in by_answer
    assert "point-biserial" in text
    assert ">1.0</td>" in text.split("By check")[1].split("</table>")[0]


def test_everything_that_a_person_must_look_at_is_in_one_list(tmp_path):
    folder = write(
        tmp_path,
        row("anna", look_at=["dice: a fault of the grader, and a person must look at it"]),
        row("ben", status="time", look_at=["The submission was stopped: it ran too long."]),
        row("carl", look_at=["The cell of dice asks for a network."]),
        row("dora", texts={"temperature": "An essay."}),
        row("emil", texts={"temperature": " *Write here.* "}),
        row("fine", 2.0),
        folders=[{"place": "x", "unrecognised": [["finn/essay.pdf", "it is not a notebook"]]}],
    )
    listed = teacher(folder).split("To be looked at")[1].split(f"<h2>{NAME}")[0]
    for there in ("anna", "ben", "carl", "dora", "finn/essay.pdf", "temperature"):
        assert there in listed, there
    assert "emil" not in listed
    assert "fine" not in listed


def test_earlier_marks_stay_to_be_seen_with_their_date(tmp_path):
    folder = write(tmp_path, row("anna", 0.5), row("anna", 2.0), row("ben"))
    text = teacher(folder).split("Earlier marks")[1]
    assert ">0.5</td>" in text
    assert ">2</td>" in text
    assert "20" in text
    assert "ben" not in text
    assert {line["student"]: line["total"] for line in lines(folder)} == {"anna": "2", "ben": "1"}


def other(number: int) -> str:
    """Write an answer that is like no other."""
    body = "".join(
        f"    v{i} = {'(' * (number % 5)}x{'+-*/'[(i + number) % 4]}"
        f"{number * 7 + i}{')' * (number % 5)}\n"
        for i in range(30)
    )
    return f"def class_prototypes(x):\n{body}    return v0\n"


@pytest.mark.parametrize("copies", [2, 3, 5, 10])
def test_copies_among_twenty_are_one_group_side_by_side(tmp_path, copies):
    code = {}
    for number in range(20):
        renamed = LONG.replace("onehot", f"name{number}") + f"# my comment {number}\n"
        source = renamed if number < copies else other(number)
        code[f"s{number:02}", NAME] = {"class_prototypes": source}
    folder = write(tmp_path, *(row(student) for student, _ in code), code=code)
    (made,) = (folder / "alike").glob("*.html")
    text = made.read_text(encoding="utf-8")
    assert text.count("torch.einsum") == min(copies, 6)
    listed = teacher(folder).split("Similar submissions")[1]
    assert [f"s{number:02}" in listed for number in range(20)] == [n < copies for n in range(20)]


def test_a_chain_of_likeness_is_one_group():
    base = set(range(1000))
    prints = {(f"s{n}", NAME): frozenset(base - set(range(40 * n, 40 * n + 40))) for n in range(4)}
    prints |= {
        (f"o{n}", NAME): frozenset(range(9000 * n + 5000, 9000 * n + 6000)) for n in range(9)
    }
    (group,) = groups(prints)
    assert group.students == ("s0", "s1", "s2", "s3")
    assert 0.9 <= group.share < 1


def test_what_the_whole_class_writes_is_no_likeness():
    usual = fingerprint({"f": LONG}, STUB)
    assert groups({(f"s{number}", NAME): usual for number in range(30)}) == []
    assert groups({(f"s{number}", NAME): frozenset() for number in range(30)}) == []
    assert groups({}) == []


def test_pages_print_well_and_have_no_script(tmp_path):
    folder = write(tmp_path, row("anna", 2.0), row("ben"))
    for path in folder.rglob("*.html"):
        text = path.read_text(encoding="utf-8")
        assert "@media print" in text
        assert "<script" not in text


# -------------------------------------------------------------------------------------- late marks


def due(percent: float = 0.0) -> dict:
    return {NAME: {"at": "2026-12-01T23:59:00+01:00", "percent": percent}}


@pytest.mark.parametrize(
    ("handed_in", "percent", "points", "words"),
    [
        ("2026-12-01T23:59:00+01:00", 10, 2.0, ""),
        ("2026-12-01T22:59:00+00:00", 10, 2.0, ""),
        ("2026-12-02T00:00:00+01:00", 10, 1.8, "late by 1 min"),
        ("2026-12-03T12:00:00+01:00", 10, 1.6, "late by 1 day 12 h"),
        ("2026-12-03T12:00:00+01:00", 0, 2.0, "no points are taken off"),
        ("2027-12-03T12:00:00+01:00", 10, 0.0, "0 of the 2 points count"),
        ("", 10, 2.0, ""),
    ],
)
def test_a_late_mark_is_worth_what_the_option_says(handed_in, percent, points, words):
    late = marks.lateness(row("anna", 2.0, handed_in=handed_in), due(percent))
    assert late.points == pytest.approx(points)
    assert words in late.said
    assert bool(late.said) == bool(words)


def test_late_marks_reach_every_form(tmp_path):
    late = row("anna", 2.0, handed_in="2026-12-03T12:00:00+01:00")
    folder = write(tmp_path, late, row("ben"), due=due(25.0))
    (anna, ben) = lines(folder)
    assert (anna[NAME], anna["total"], anna["maximum"]) == ("1", "1", "2")
    assert "late by" in anna["late"]
    assert ben["late"] == ""
    assert "25 % are taken off per begun day" in page(folder, "anna")
    assert "late by" in teacher(folder)
    scope = json.loads((folder / "gradescope/anna/results.json").read_text(encoding="utf-8"))
    assert scope["score"] == 1.0


@pytest.mark.parametrize("text", ["2026-12-01 23:59", "2026-12-01", "20261201T2359Z"])
def test_a_due_date_is_read_as_it_is_written(text):
    assert marks.read_due(text).startswith("2026-12-01T23:59")


@pytest.mark.parametrize("text", ["tomorrow", "1.12.2026", "2026-13-01", " ", "2026-12-01 25:00"])
def test_a_due_date_that_is_none_is_one_sentence(text):
    with pytest.raises(marks.BadOption, match="is not a date: write"):
        marks.read_due(text)


# ------------------------------------------------------------------------------------------ tables


@pytest.mark.parametrize(
    "name",
    [
        *("=1+1", "＝1+1", " =1", "\t=1", "\u00a0=1", "\u200b=1", "+1", "-1"),
        *("@x", "＠x", "﹢1", "x;=1"),
        *("\r=1", "x\n=1", '"=1', "'=1", "x,＝1", "|cmd", "％1"),
    ],
)
def test_no_name_is_a_formula_of_a_spreadsheet(tmp_path, name):
    text = (write(tmp_path, row(name)) / "grades.csv").read_bytes()
    assert text.startswith(b"\xef\xbb\xbf")
    for separator in ",;\t":
        reader = csv.reader(io.StringIO(text.decode("utf-8-sig")), delimiter=separator)
        for line in reader:
            for one in line:
                assert one.strip().lstrip('"')[:1] not in {*"=+-@|%", "＝", "＋", "－", "＠", "％"}


def test_the_table_lists_late_maximum_status_and_what_was_not_recognised(tmp_path):
    strange = [{"place": "x", "unrecognised": [["finn/=essay.pdf", "it is not a notebook"]]}]
    folder = write(tmp_path, row("anna"), row("ben", status="died"), folders=strange)
    anna, ben, other = lines(folder)
    assert list(anna) == ["student", NAME, "total", "maximum", "late", "note", "language"]
    assert ben["note"] == f"{NAME}: died"
    assert other["student"] == ""
    assert "finn/=essay.pdf: it is not a notebook" in other["note"]


# ------------------------------------------------------------------------------- Moodle and Canvas

ANNA = "Anna Arn_1234567_assignsubmission_file_"


def of_moodle(student: str, folder: str, number: str) -> dict:
    lms = {"kind": "moodle", "name": student, "id": number, "late": ""}
    return row(
        f"{student}_{number}", 1.5, lms={**lms, "file": f"{folder}/03_prototypes-Copy1.ipynb"}
    )


def test_moodle_takes_grades_and_feedback_back(tmp_path):
    bert = "Bert_89_assignsubmission_file"
    rows = [of_moodle("Anna Arn", ANNA, "1234567"), of_moodle("Bert", f"export/{bert}", "89")]
    folder = write(tmp_path, *rows)
    anna, other = lines(folder, f"moodle/{NAME}-grades.csv")
    assert anna["Identifier"] == "Participant 1234567"
    assert other["Identifier"] == "Participant 89"
    assert (anna["Full name"], anna["Grade"], anna["Maximum grade"]) == ("Anna Arn", "1.5", "2")
    assert anna["Last modified (grade)"].startswith("20")
    assert "class_prototypes 1.5 of 2" in anna["Feedback comments"]
    with zipfile.ZipFile(folder / "moodle" / f"{NAME}-feedback.zip") as archive:
        assert sorted(archive.namelist()) == [f"{ANNA}/{NAME}.html", f"{bert}/{NAME}.html"]
        assert b"Anna Arn" in archive.read(f"{ANNA}/{NAME}.html")
    assert not (folder / "canvas").exists()


def test_canvas_takes_grades_and_feedback_back(tmp_path):
    lms = {"kind": "canvas", "name": "arnanna", "id": "12345", "late": "yes"}
    file = "arnanna_LATE_12345_67890_03_prototypes-1.ipynb"
    folder = write(tmp_path, row("arnanna_12345", 1.5, lms={**lms, "file": file}), row("ben"))
    text = (folder / "canvas" / "grades.csv").read_text(encoding="utf-8")
    head, possible, anna = csv.reader(io.StringIO(text))
    assert head == ["Student", "ID", "SIS User ID", "SIS Login ID", "Section", NAME]
    assert possible[0].strip() == "Points Possible"
    assert possible[-1] == "2"
    assert anna == ["arnanna", "12345", "", "", "", "1.5"]
    with zipfile.ZipFile(folder / "canvas" / f"{NAME}-feedback.zip") as archive:
        assert archive.namelist() == ["arnanna_LATE_12345_67890_03_prototypes-1.html"]
    assert "The platform marks it as late" in lines(folder)[0]["late"]
    assert not (folder / "moodle").exists()


@pytest.mark.parametrize("file", ["../../evil.ipynb", "/etc/x.ipynb", "..", "", "a\\..\\b.ipynb"])
def test_no_name_of_an_export_leads_out_of_the_zip(tmp_path, file):
    rows = [
        row("a", lms={"kind": kind, "name": "a", "id": "1", "late": "", "file": file})
        for kind in ("moodle", "canvas")
    ]
    pages = {("a", NAME): "page"}
    for made in (marks.moodle(rows, {}, pages), marks.canvas(rows, {}, pages)):
        with zipfile.ZipFile(io.BytesIO(made[f"{NAME}-feedback.zip"])) as archive:
            for name in archive.namelist():
                assert ".." not in name.split("/")
                assert not name.startswith("/")


def test_nothing_is_written_for_a_platform_that_nobody_used(tmp_path):
    folder = write(tmp_path, row("anna"))
    assert not (folder / "moodle").exists()
    assert not (folder / "canvas").exists()

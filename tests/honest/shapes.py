"""Unusual notebooks that are right: what students, their editors and their platforms make of one.

Each shape takes a :class:`book.Book` whose answers are all right and changes it. Unless it says
otherwise every answer keeps all of its points, in ``fewshot grade`` and in ``fewshot check``.
"""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from book import Book, function, inside, new

NAME = "NAME"  # stands for an answer's name in the texts below


@dataclass(frozen=True)
class Shape:
    """A way in which a notebook may be changed.

    Arguments:
        change: does it.
        only: the exercise that it is for; "" where it suits each.
        loses: the answers that lose all their points, by place; all others keep theirs.
        says: an expression that a sentence of ``look_at`` must match.
        quick: graded under short limits, so that a slow cell is soon stopped.
    """

    change: Callable[[Book], None]
    only: str = ""
    loses: Sequence[int] = ()
    says: str = ""
    quick: bool = False

    @property
    def name(self) -> str:
        """What is changed, in words."""
        return self.change.__name__


SHAPES: dict[str, Shape] = {}


def shape(
    only: str = "", loses: Sequence[int] = (), says: str = "", quick: bool = False
) -> Callable[[Callable[[Book], None]], Callable[[Book], None]]:
    """Enter a change into the table."""

    def enter(change: Callable[[Book], None]) -> Callable[[Book], None]:
        assert change.__name__ not in SHAPES
        SHAPES[change.__name__] = Shape(change, only, loses, says, quick)
        return change

    return enter


def _table(rows: dict[str, str], add: Callable[[Book, str], None], **named: object) -> None:
    """Enter one shape per row: a name and the code that is added."""
    for name, code in rows.items():

        def change(book: Book, code: str = textwrap.dedent(code).strip("\n")) -> None:
            add(book, code)

        change.__name__ = name
        shape(**named)(change)  # type: ignore[arg-type]


# --- the file, as other programs write it --------------------------------------------------------


@shape()
def vs_code(book: Book) -> None:
    """Write the language into every cell, and no nbgrader."""
    for cell in book.cells:
        cell["metadata"] = {"vscode": {"languageId": "python"}}


@shape()
def colab(book: Book) -> None:
    """Lose the ids and the metadata; keep Colab's own."""
    book.notebook["nbformat_minor"] = 0
    book.notebook["metadata"] = {"colab": {"provenance": [], "gpuType": "T4"}, "accelerator": "GPU"}
    for number, cell in enumerate(book.cells):
        cell.pop("id", None)
        cell["metadata"] = {"id": f"aB{number}", "outputId": "c0ffee", "colab": {"height": 35}}


@shape()
def deepnote(book: Book) -> None:
    """Take Deepnote's metadata in the place of all others."""
    for number, cell in enumerate(book.cells):
        cell["metadata"] = {"deepnote_cell_type": cell["cell_type"], "cell_id": f"{number:032x}"}
        cell["block_group"] = "x"


@shape()
def kaggle(book: Book) -> None:
    """Add Kaggle's first cell and its metadata."""
    for number, cell in enumerate(book.cells):
        cell["metadata"] = {"_uuid": f"{number:x}", "_cell_guid": "1-2", "trusted": True}
    first = "import os\nfor folder, _, files in os.walk('/kaggle/input'):\n    print(folder, files)"
    book.cells.insert(0, new(first))


@shape()
def minor_2_without_ids(book: Book) -> None:
    """Save in the oldest minor version of format 4."""
    book.notebook["nbformat_minor"] = 2
    for cell in book.cells:
        cell.pop("id", None)


@shape()
def ids_lost(book: Book) -> None:
    """Lose the cells' ids only."""
    for cell in book.cells:
        cell.pop("id", None)


@shape()
def every_id_the_same(book: Book) -> None:
    """Have one id for all cells, as a careless script writes them."""
    for cell in book.cells:
        cell["id"] = "cell"


@shape()
def metadata_lost(book: Book) -> None:
    """Lose what nbgrader wrote into the cells."""
    for cell in book.cells:
        cell["metadata"] = {}


@shape()
def outputs_lost_and_counts_absent(book: Book) -> None:
    """Drop the fields that a format checker wants."""
    for cell in book.code:
        cell.pop("outputs", None)
        cell.pop("execution_count", None)


@shape()
def other_kernel(book: Book) -> None:
    """Name a kernel that exists nowhere."""
    book.notebook["metadata"] = {"kernelspec": {"name": "my-conda-env", "display_name": "torch"}}


@shape()
def source_as_lines(book: Book) -> None:
    """Write each source as a list of lines."""
    for cell in book.cells:
        cell["source"] = cell["source"].splitlines(keepends=True)


@shape()
def source_in_single_characters(book: Book) -> None:
    """Write each source as a list of characters."""
    for cell in book.cells:
        cell["source"] = list(cell["source"])


@shape()
def windows_line_ends(book: Book) -> None:
    """End lines as Windows does."""
    for cell in book.cells:
        cell["source"] = cell["source"].replace("\n", "\r\n")


@shape()
def old_macintosh_line_ends(book: Book) -> None:
    """End lines with carriage returns."""
    for cell in book.cells:
        cell["source"] = cell["source"].replace("\n", "\r")


@shape()
def byte_order_mark(book: Book) -> None:
    """Begin the file as Notepad does."""
    book.prefix = b"\xef\xbb\xbf"


@shape()
def escaped_and_on_one_line(book: Book) -> None:
    """Write the JSON compactly and in ASCII."""
    book.encode = {"ensure_ascii": True, "separators": (",", ":")}


@shape()
def tabs(book: Book) -> None:
    """Indent the answers with tabs."""
    for name in book.names:
        lines = book.answer(name)["source"].split("\n")
        moved = [re.sub(r"^( {4})+", lambda m: "\t" * (len(m[0]) // 4), line) for line in lines]
        book.answer(name)["source"] = "\n".join(moved)


@shape()
def blanks_and_form_feeds(book: Book) -> None:
    """Add space where none matters."""
    for name in book.names:
        book.answer(name)["source"] = f"\n\n\f{book.answer(name)['source']}   \n\n   \n"


@shape()
def indented_as_a_whole(book: Book) -> None:
    """Paste an answer with leading blanks, which IPython takes away."""
    book.answer(book.last)["source"] = textwrap.indent(book.answer(book.last)["source"], "    ")


@shape()
def prompts_pasted(book: Book) -> None:
    """Paste an answer from a terminal, with its prompts."""
    first, *rest = book.answer(book.last)["source"].split("\n")
    book.answer(book.last)["source"] = "\n".join([f">>> {first}", *(f"... {r}" for r in rest)])


# --- cells added, split, moved, copied, deleted --------------------------------------------------


@shape()
def import_added_to_a_handed_out_cell(book: Book) -> None:
    """Import in the first cell what an answer uses."""
    book.code[0]["source"] += "\nimport math as ours"
    book.inside(book.last, "assert ours.pi > 3")


@shape()
def import_before_the_handed_out_ones(book: Book) -> None:
    """Import above all else what an answer uses."""
    book.code[0]["source"] = "import functools as ours\n" + book.code[0]["source"]
    book.inside(book.names[0], "assert ours.reduce")


@shape()
def import_alone_in_a_cell_at_the_end(book: Book) -> None:
    """Import below everything: the answers are called later."""
    book.inside(book.last, "assert ours.pi > 3")
    book.append("import math as ours")


@shape()
def helper_added_to_a_check_cell(book: Book) -> None:
    """Define in a check's cell what an answer uses."""
    cell = book.check(book.names[0])
    cell["source"] = f"def our_helper():\n    return 1\n\n{cell['source']}"
    book.inside(book.last, "assert our_helper() == 1")


@shape()
def constant_below_a_check(book: Book) -> None:
    """Set below a check what the answer reads."""
    book.check(book.names[0])["source"] += "\nOUR_LIMIT = 10"
    book.inside(book.last, "assert OUR_LIMIT == 10")


@shape()
def answer_cell_split_in_two(book: Book) -> None:
    """Split an answer's cell: imports and a helper in the first part, which keeps the id."""
    cell = book.answer(book.names[0])
    second = new(cell["source"])
    second["metadata"] = dict(cell["metadata"])
    cell["source"] = "import math\ndef our_helper(x):\n    return math.floor(x)"
    book.cells.insert(book.at(book.names[0]) + 1, second)
    second["source"] = inside(second["source"], book.names[0], "assert our_helper(1.5) == 1")


@shape()
def answer_cell_split_in_three(book: Book) -> None:
    """Split in three, of which the middle one has lost its metadata and the last is a test."""
    name = book.last
    cell = book.answer(name)
    first, last = new("import math as ours"), new(f"print({name})\nOURS = 1")
    first["metadata"] = last["metadata"] = dict(cell["metadata"])
    place = book.at(name)
    middle = new(inside(cell["source"], name, "assert ours.pi and OURS"))
    book.cells[place : place + 1] = [first, middle, last]


@shape()
def helper_below_the_answer(book: Book) -> None:
    """Define a helper after the answer that calls it."""
    book.inside(book.last, "assert our_helper()")
    book.after(book.last, "def our_helper():\n    return True")


@shape()
def copied_and_the_last_is_right(book: Book) -> None:
    """Leave the stub and write the answer in a copy of its cell below."""
    for name in book.names:
        place = book.at(name)
        right = dict(book.cells[place])
        book.lose(name)
        book.cells.insert(place + 1, right)
        book.cells[place] = dict(book.cells[place])
        book.cells[place]["source"], right["source"] = book.stubs[name], right["source"]


@shape(loses=[-1])
def copied_and_the_last_is_a_stub(book: Book) -> None:
    """Write the answer and leave a stub below it: in Jupyter the stub counts, and here."""
    stub = {**book.answer(book.last), "source": book.stubs[book.last]}
    book.cells.insert(book.at(book.last) + 1, stub)


@shape()
def all_answers_in_one_cell_at_the_top(book: Book) -> None:
    """Move all answers into one cell of the student's own below the imports."""
    whole = "\n\n".join(book.answer(name)["source"] for name in book.names)
    book.notebook["cells"][:] = [c for c in book.cells if not _is_answer(book, c)]
    book.top(whole)


@shape()
def all_answers_in_one_cell_at_the_bottom(book: Book) -> None:
    """Move all answers into one cell at the end; every cell before fails."""
    whole = "\n\n".join(book.answer(name)["source"] for name in book.names)
    book.notebook["cells"][:] = [c for c in book.cells if not _is_answer(book, c)]
    book.append(whole)


@shape()
def answers_in_the_reverse_order(book: Book) -> None:
    """Answer from the last to the first."""
    places = [book.at(name) for name in book.names]
    cells = [book.cells[place] for place in places]
    for place, cell in zip(places, reversed(cells), strict=True):
        book.cells[place] = cell


@shape()
def all_cells_in_the_reverse_order(book: Book) -> None:
    """Turn the notebook upside down, but for the imports: definitions are all that counts."""
    first = book.cells.index(book.code[0])
    book.cells[first + 1 :] = book.cells[: first - len(book.cells) : -1]


@shape()
def markdown_beside_code(book: Book) -> None:
    """Turn the checks into text and add text above the answers."""
    for name in book.names:
        check = book.check(name)
        check["cell_type"] = "markdown"
        check.pop("outputs", None)
        book.cells.insert(book.at(name), new(f"My own words on {name}.", "markdown"))


@shape()
def raw_copy_above(book: Book) -> None:
    """Keep an old version in a raw cell with the same grade_id."""
    old = new(book.stubs[book.last], "raw")
    old["metadata"] = dict(book.answer(book.last)["metadata"])
    book.cells.insert(book.at(book.last), old)


@shape()
def checks_deleted(book: Book) -> None:
    """Delete every check."""
    book.cells[:] = [cell for cell in book.cells if cell not in map(book.check, book.names)]


@shape()
def handed_out_cells_deleted(book: Book) -> None:
    """Keep the imports and the answers only."""
    first = book.code[0]
    helpers = [c for c in book.code if re.search(r"^(def|class) |^[A-Z_]+ =", c["source"], re.M)]
    kept = [c for c in book.cells if c is first or c in helpers or _is_answer(book, c)]
    book.cells[:] = kept


@shape()
def deleted_imports_added_elsewhere(book: Book) -> None:
    """Delete the imports at the top and write them at the end."""
    first = book.code[0]
    book.cells.remove(first)
    book.append(first["source"])


@shape()
def stub_kept_as_a_comment(book: Book) -> None:
    """Keep the stub's lines as comments below the answer."""
    book.answer(book.last)["source"] += "\n" + textwrap.indent(book.stubs[book.last], "# ")


@shape()
def docstring_changed(book: Book) -> None:
    """Write another docstring and nothing else."""
    source = book.answer(book.last)["source"]
    book.answer(book.last)["source"] = source.replace('"""', '"""MEIN TEXT: ', 1)


@shape()
def docstring_deleted(book: Book) -> None:
    """Delete the docstring."""
    source = book.answer(book.last)["source"]
    text = ast.get_docstring(function(source, book.last), clean=False)
    assert text is not None
    book.answer(book.last)["source"] = source.replace(f'"""{text}"""', "# mine", 1)


@shape()
def an_empty_and_a_comment_cell(book: Book) -> None:
    """Leave empty cells about."""
    for name in book.names:
        book.before(name, "")
        book.after(name, "# nothing here\n")


@shape(loses=[-1])
def renamed_answer(book: Book) -> None:
    """Give an answer another name: no program can know."""
    cell = book.answer(book.last)
    cell["source"] = cell["source"].replace(f"def {book.last}(", f"def my_{book.last}(")


@shape(loses=[0])
def stub_left(book: Book) -> None:
    """Leave the first answer unwritten; what calls it goes on."""
    book.lose(book.names[0])


@shape(loses=[-1])
def answer_cell_turned_into_text(book: Book) -> None:
    """Turn an answer's cell into Markdown."""
    book.answer(book.last)["cell_type"] = "markdown"


def _is_answer(book: Book, cell: dict[str, object]) -> bool:
    return any(cell is book.answer(name) for name in book.names)


# --- cells of the student's own -------------------------------------------------------------------

# The first cell of its own stands below the imports, the answers work afterwards as before.
_table(
    {
        "matplotlib_inline": "%matplotlib inline",
        "autoreload": "%load_ext autoreload\n%autoreload 2",
        "config_magic": "%config InlineBackend.figure_format = 'retina'",
        "precision_and_who": "%precision 3\n%who\n%whos",
        "help_on_a_function": "torch.mean?",
        "source_of_a_function": "torch.nn.functional.pad??",
        "help_in_the_middle": "a = 1\ntorch.mean?\nb = 2",
        "shell_output_in_a_variable": "files = !ls -a\nassert len(files) > 0",
        "pip_install": "!pip install numpy",
        "pip_install_on_two_lines": "!pip install \\\n    numpy",
        "pip_magic": "%pip install -q numpy",
        "bash_cell": "%%bash\necho one\nls",
        "html_cell": "%%html\n<b>bold</b>",
        "timeit_cell": "%%timeit -n 1 -r 1\nsum(range(10))",
        "long_running_magic": "%time _ = sum(range(1000))",
        "top_level_await": "import asyncio\nawait asyncio.sleep(0)",
        "asyncio_run_fails_as_in_jupyter": "import asyncio\nasync def f():\n    pass\n"
        "asyncio.run(f())",
        "system_exit": "import sys\nsys.exit()",
        "exit_with_a_message": "import sys\nsys.exit('done for today')",
        "exit_called": "exit()",
        "quit_called": "quit()",
        "raises": "1 / 0",
        "syntax_error": "def f(:\n  return",
        "assertion_that_fails": "assert False, 'left over'",
        "keyboard_interrupt": "raise KeyboardInterrupt",
        "huge_print": "print('x' * 5_000_000)\nfor i in range(20_000):\n    print(i)",
        "writes_to_stderr": "import sys\nprint('oh', file=sys.stderr)\nsys.stdout.flush()",
        "warns": "import warnings\nwarnings.warn('careful')\nwarnings.simplefilter('ignore')",
        "logs": "import logging\nlogging.basicConfig(level=logging.DEBUG)\nlogging.info('begun')",
        "draws": "import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.show()",
        "displays": "from IPython.display import HTML, display, clear_output\n"
        "display(HTML('<b>x</b>'))\nclear_output()\ntorch.zeros(2)",
        "asks_ipython": "ip = get_ipython()\nip.run_line_magic('time', '1')\nIn[-1], Out",
        "sets_seeds_and_threads": "import random\nrandom.seed(0)\ntorch.manual_seed(0)\n"
        "torch.set_num_threads(1)\ntorch.set_printoptions(precision=2)",
        "deterministic_algorithms": "torch.use_deterministic_algorithms(True)",
        "asks_for_a_gpu": "device = 'cuda' if torch.cuda.is_available() else 'cpu'\n"
        "torch.zeros(1).to(device)",
        "threads": "import threading\nt = threading.Thread(target=print, args=('x',))\n"
        "t.start()\nt.join()",
        "thread_pool": "from concurrent.futures import ThreadPoolExecutor\n"
        "with ThreadPoolExecutor(4) as pool:\n    assert list(pool.map(abs, [-1, 2])) == [1, 2]",
        "loader_with_workers": "from torch.utils.data import DataLoader, TensorDataset\n"
        "data = TensorDataset(torch.zeros(8, 2))\n"
        "assert len(list(DataLoader(data, 2, num_workers=2))) == 4",
        "subprocess": "import subprocess\nsubprocess.run(['ls'], check=True)",
        "changes_folder": "%cd -q ..\n%pwd",
        "temporary_files": "import tempfile, pathlib\n"
        "place = pathlib.Path(tempfile.mkdtemp())\n(place / 'x').write_text('1')",
        "names_of_builtins": "list_ = list\ninput_, type_ = input, type\nsum = sum",
        "deletes_a_name": "thing = 1\ndel thing\n%reset_selective -f thing",
        "background_thread_that_stays": "import threading, time\n"
        "threading.Thread(target=time.sleep, args=(60,), daemon=True).start()",
        "draws_inline_settings": "import matplotlib as mpl\nmpl.rcParams['figure.dpi'] = 120",
        "traceback_mode": "%xmode Plain\n%pdb off",
        "environment_magic": "%env OURS=1\n%set_env OURS=2",
        "walks_the_version": "import sys, platform, numpy\n"
        "print(sys.version, platform.platform(), numpy.__version__, torch.__version__)",
    },
    Book.top,
)


@shape()
def multiprocessing_pool(book: Book) -> None:
    """Compute in other processes, or be told that this fails; the answers stand."""
    book.append("from multiprocessing import Pool\nwith Pool(2) as p:\n    print(p.map(abs, [-1]))")


# --- at the end, where nothing must be lost any more ---------------------------------------------

_table(
    {
        "ends_the_process_at_the_end": "import os\nos._exit(1)",
        "segfault_at_the_end": "import ctypes\nctypes.string_at(0)",
        "exit_at_the_end": "exit()",
        "dies_by_signal": "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)",
    },
    Book.append,
)


def _thrice(book: Book, code: str) -> None:
    book.top(code)
    book.after(book.check(book.names[0])["metadata"]["nbgrader"]["grade_id"], code)
    book.append(code)


_table(
    {
        "three_slow_cells": "import time\ntime.sleep(30)",
        "three_endless_loops": "while True:\n    pass",
        "three_loops_that_catch_everything": """
            import time
            while True:
                try:
                    time.sleep(30)
                except BaseException:
                    break
        """,
    },
    _thrice,
    quick=True,
    only="03_prototypes",
)


@shape(quick=True, only="03_prototypes", says="was stopped after")
def three_slow_cells_at_the_end(book: Book) -> None:
    """Take three times the budget of a cell below the last answer."""
    for _ in range(3):
        book.append("import time\ntime.sleep(25)")


# --- code of the answers themselves ------------------------------------------------------------


def _each(book: Book, code: str) -> None:
    for name in book.names:
        book.answer(name)["source"] += "\n" + code.replace(NAME, name)


def _on_last(book: Book, code: str) -> None:
    book.answer(book.last)["source"] += "\n" + code.replace(NAME, book.last)


_table(
    {
        "answers_as_lambdas": "_own_NAME = NAME\nNAME = lambda *a, **k: _own_NAME(*a, **k)",
        "answers_decorated": """
            import functools
            def traced(function):
                @functools.wraps(function)
                def inside(*a, **k):
                    return function(*a, **k)
                return inside
            NAME = traced(NAME)
        """,
        "answers_as_objects": """
            class _Called_NAME:
                def __init__(self, function):
                    self.function = function
                def __call__(self, *a, **k):
                    return self.function(*a, **k)
            NAME = _Called_NAME(NAME)
        """,
        "answers_as_partials": "import functools\nNAME = functools.partial(NAME)",
        "answers_as_static_methods": """
            class Mine_NAME:
                answer = staticmethod(NAME)
            NAME = Mine_NAME.answer
        """,
        "answers_without_gradients": "NAME = torch.no_grad()(NAME)",
        "answers_compiled": "NAME = torch.compile(NAME)",
        "answers_jit_ignored": "NAME = torch.jit.ignore(NAME)",
        "answers_print": """
            _quiet_NAME = NAME
            def NAME(*a, **k):
                print('called with', a)
                return _quiet_NAME(*a, **k)
        """,
        "answers_warn": """
            import warnings
            _calm_NAME = NAME
            def NAME(*a, **k):
                warnings.warn('careful')
                return _calm_NAME(*a, **k)
        """,
        "answers_log_to_stderr": """
            import sys
            _calm_NAME = NAME
            def NAME(*a, **k):
                print('careful', file=sys.stderr)
                return _calm_NAME(*a, **k)
        """,
        "answers_defined_twice_the_same": "_second_NAME = NAME\nNAME = _second_NAME",
        "answers_called_in_their_cell": "try:\n    NAME()\nexcept TypeError:\n    pass",
        "answers_with_annotations": "NAME.__annotations__ = {'return': 'torch.Tensor'}",
        "cell_exits_after_the_answer": "import sys\nsys.exit(0)",
        "cell_raises_after_the_answer": "raise RuntimeError('my own test failed')",
    },
    _each,
)


@shape()
def future_annotations_in_each_answer(book: Book) -> None:
    """Begin each answer's cell with a future import."""
    for name in book.names:
        cell = book.answer(name)
        cell["source"] = f"from __future__ import annotations\n{cell['source']}"


@shape()
def dataclass_in_an_answer_cell(book: Book) -> None:
    """Define a dataclass beside an answer, and use it in the answer."""
    source = "from dataclasses import dataclass\n@dataclass\nclass Ours:\n    number: int = 1\n"
    book.inside(book.last, "assert Ours(2).number == 2")
    book.answer(book.last)["source"] = source + book.answer(book.last)["source"]


@shape()
def time_around_an_answer(book: Book) -> None:
    """Begin an answer's cell with %%time."""
    for name in book.names:
        book.answer(name)["source"] = f"%%time\n{book.answer(name)['source']}"


@shape()
def capture_around_an_answer(book: Book) -> None:
    """Begin an answer's cell with %%capture."""
    book.answer(book.last)["source"] = f"%%capture out\n{book.answer(book.last)['source']}"


@shape()
def magics_in_an_answer_cell(book: Book) -> None:
    """Have magics and shell lines beside the answer, and use what they set."""
    book.inside(book.last, "assert OURS == 3 and spent and files is not None")
    more = "%time OURS = 3\nspent = %timeit -o -n 1 -r 1 sum(range(10))\nfiles = !ls\n"
    cell = book.answer(book.last)
    cell["source"] = f"{more}{cell['source']}\ntorch.sum?"


@shape()
def module_written_by_a_cell(book: Book) -> None:
    """Write a module with %%writefile and import it in the answer."""
    book.before(book.last, "%%writefile our_helper.py\ndef one():\n    return 1")
    book.inside(book.last, "import our_helper\nassert our_helper.one() == 1")


@shape()
def program_written_and_run(book: Book) -> None:
    """Write a script, %run it, and use what it leaves."""
    book.before(book.last, "%%writefile our_script.py\nOURS = 1 + 1")
    book.cells.insert(book.at(book.last), new("%run our_script.py"))
    book.inside(book.last, "assert OURS == 2")


@shape()
def constant_changed_in_a_later_cell(book: Book) -> None:
    """Set a constant wrongly and mend it in a later cell."""
    book.before(book.last, "OURS = None")
    book.inside(book.last, "assert OURS + 1 == 2")
    book.append("OURS = 1")


@shape()
def global_statement(book: Book) -> None:
    """Count the calls in a global name."""
    book.before(book.last, "calls = 0")
    book.inside(book.last, "global calls\ncalls += 1")


@shape()
def unicode_and_new_syntax(book: Book) -> None:
    """Use names in Greek, the walrus, match and starred indices."""
    book.inside(
        book.last,
        "if (α := 1) > 0:\n    match α:\n        case 1:\n            pass\n"
        "        case _:\n            raise ValueError",
    )


@shape()
def nested_helpers_and_closures(book: Book) -> None:
    """Define functions in the answer."""
    book.inside(book.last, "def outer(x):\n    def inner():\n        return x\n    return inner()")


@shape()
def star_imports(book: Book) -> None:
    """Import everything from a package, below the imports."""
    book.top("from torch import *\nfrom math import *\nimport torch")
    book.inside(book.last, "assert pi > 3 and zeros(1).sum() == 0")


@shape()
def alias_of_an_import(book: Book) -> None:
    """Call torch by another name."""
    book.top("import torch as t")
    source = book.answer(book.last)["source"]
    book.answer(book.last)["source"] = re.sub(r"\btorch\.", "t.", source)


@shape()
def cached_helper(book: Book) -> None:
    """Cache a helper."""
    book.before(
        book.last,
        "from functools import lru_cache\n@lru_cache\ndef our_helper(n):\n    return n",
    )
    book.inside(book.last, "assert our_helper(2) == 2")


@shape()
def result_that_wants_gradients(book: Book) -> None:
    """Give a result with a gradient history."""
    _on_last(
        book,
        """
_own = NAME
def NAME(*a, **k):
    result = _own(*a, **k)
    if torch.is_tensor(result) and result.is_floating_point():
        result = result * torch.ones((), dtype=result.dtype, requires_grad=True)
    return result
""".strip().replace(NAME, book.last),
    )


@shape(only="03_prototypes")
def result_as_numpy(book: Book) -> None:
    """Give an array of NumPy's."""
    _on_last(book, "_own = NAME\ndef NAME(*a, **k):\n    return _own(*a, **k).numpy()")


@shape(only="03_prototypes")
def result_as_nested_lists(book: Book) -> None:
    """Give lists: they say no dtype, but the numbers are right."""
    _on_last(book, "_own = NAME\ndef NAME(*a, **k):\n    return _own(*a, **k).tolist()")


def _pair(book: Book, code: str) -> None:
    name = "bootstrap_interval"
    book.answer(name)["source"] += f"\n_own = {name}\ndef {name}(*a, **k):\n" + textwrap.indent(
        "low, high = _own(*a, **k)\n" + code, "    "
    )


_table(
    {
        "pair_of_numpy_scalars": "import numpy as np\nreturn np.float64(low), np.float64(high)",
        "pair_as_a_list": "return [low, high]",
        "pair_of_tensors": "return torch.as_tensor(low), torch.as_tensor(high)",
        "pair_as_one_tensor": "return torch.tensor([float(low), float(high)])",
        "pair_as_one_array": "import numpy as np\nreturn np.array([float(low), float(high)])",
        "pair_as_a_named_tuple": "from collections import namedtuple\n"
        "return namedtuple('Interval', 'low high')(low, high)",
        "pair_as_a_dict": "return {'low': low, 'high': high}",
        "pair_as_a_dataclass": "from dataclasses import make_dataclass\n"
        "return make_dataclass('Interval', ['low', 'high'])(low, high)",
    },
    _pair,
    only="01_dice",
)


@shape(only="03_prototypes")
def default_dtype_changed_in_a_cell(book: Book) -> None:
    """Set the default dtype; results follow the inputs."""
    book.top("torch.set_default_dtype(torch.float64)")


@shape(only="03_prototypes")
def answer_that_uses_another(book: Book) -> None:
    """Let two answers rest on a third, all right."""
    book.inside("log_posterior", "assert squared_euclidean(queries, prototypes).ndim >= 2")


@shape(only="03_prototypes", loses=[1])
def answer_that_uses_a_wrong_one(book: Book) -> None:
    """Let an answer call one that is wrong: in Jupyter carry_on puts the course's in its place."""
    cell = book.answer("squared_euclidean")
    cell["source"] = "def squared_euclidean(queries, prototypes):\n    return None"


# --- what is not there while grading: the points may go, but a sentence says so -----------------

_table(
    {
        "network_in_a_cell": "import urllib.request\nurllib.request.urlopen('http://127.0.0.1:9')",
        "git_clone": "!git clone https://example.org/course.git",
        "package_that_is_absent": "import a_package_that_is_not_there",
        "file_beside_the_notebook": "import pathlib\npathlib.Path('my_results.csv').read_text()",
        "input_from_the_keyboard": "name = input('your name? ')",
    },
    Book.top,
    says=r"network|package a_package_that_is_not_there|my_results\.csv|types",
)

_table(
    {
        "network_in_an_answer": "import urllib.request\nurllib.request.urlopen('http://127.0.0.1:9')",
        "absent_package_in_an_answer": "import a_package_that_is_not_there",
        "file_read_in_an_answer": "open('my_weights.pt').read()",
        "input_in_an_answer": "input('go on? ')",
    },
    lambda book, code: book.inside(book.last, code),
    loses=[-1],
    says=r"network|package a_package_that_is_not_there|my_weights\.pt|types",
)

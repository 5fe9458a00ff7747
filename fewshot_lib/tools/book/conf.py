"""Sphinx settings of the book. ``build`` copies this file beside the pages and runs Sphinx there.

What differs from course to course is in ``book.json``, which ``build`` writes.
"""

import json
from pathlib import Path

BOOK = json.loads((Path(__file__).parent / "book.json").read_text(encoding="utf-8"))

project = BOOK["title"]
html_title = project
language = BOOK["language"]
html_search_language = "en"  # English and Chinese: see the extension
html_context = {"editions": BOOK["editions"], "words": BOOK["words"]}
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.mathjax",
    "sphinxcontrib.bibtex",
    "fewshot_lib.tools.book.extension",
]
exclude_patterns = ["_build", "_extra", "_templates"]

nb_execution_mode = "off"
nb_merge_streams = True
nb_code_prompt_show, nb_code_prompt_hide = BOOK["words"]["show"], BOOK["words"]["hide"]
myst_enable_extensions = ["dollarmath", "amsmath", "colon_fence"]
myst_heading_anchors = 3
bibtex_bibfiles = ["references.bib"]
bibtex_default_style = "plain"

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True

# MathJax lies in the book and draws SVG, which needs no fonts. It takes a third of a second to
# load: book.js calls it when everything else answers.
mathjax_path = "mathjax/tex-svg.js"
mathjax_options = {"type": "text/later", "defer": "defer"}

html_theme = "sphinx_book_theme"
html_static_path = ["_static"]
html_extra_path = ["_extra"]
html_css_files = ["book.css"]
html_js_files = ["frames.js", "questions.js", ("book.js", {"defer": "defer"})]
html_copy_source = False
html_show_sourcelink = False
html_show_sphinx = False
html_use_index = False
html_domain_indices = False
templates_path = ["_templates"]
html_sidebars = {"**": ["navbar-logo.html", "search-button-field.html", "sbt-sidebar-nav.html"]}
html_theme_options = {
    "home_page_in_toc": False,
    "show_navbar_depth": 1,
    "show_toc_level": 2,
    "navbar_persistent": [],  # the search has its place in the sidebar
    "use_download_button": False,
    "use_fullscreen_button": False,
    "search_bar_text": BOOK["words"]["search"],
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
    "article_header_end": ["language.html", "article-header-buttons.html"],
    "footer_content_items": ["progress.html"],
}
if BOOK["repository"]:
    html_theme_options |= {
        "repository_url": BOOK["repository"],
        "repository_branch": BOOK["branch"],
        "path_to_docs": "",
        "launch_buttons": {
            "binderhub_url": "https://mybinder.org",
            "colab_url": "https://colab.research.google.com",
            "notebook_interface": "jupyterlab",
            **({"jupyterhub_url": BOOK["hub"]} if BOOK["hub"] else {}),
        },
    }

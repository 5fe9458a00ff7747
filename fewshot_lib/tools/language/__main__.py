"""Bring the catalogues of a language up to date."""

import sys

from fewshot_lib.checker import language as speech
from fewshot_lib.tools.language import catalogues
from fewshot_lib.tools.language.extract import NoSuchCatalogue
from fewshot_lib.tools.machine import course_folder

folder = course_folder()
if folder is None or len(sys.argv) < 2:
    raise SystemExit(
        "In the course's folder: python -m fewshot_lib.tools.language LANGUAGE [NAME …]"
    )
try:
    print("\n".join(catalogues.update(folder, speech.known(sys.argv[1]), sys.argv[2:])))
except (speech.NoSuchLanguage, NoSuchCatalogue) as error:
    raise SystemExit(str(error)) from None

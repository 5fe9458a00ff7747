"""Make other languages' editions of the course from the English one and their catalogues.

``python -m fewshot_lib.tools.language zh_CN`` brings the catalogues up to date: new paragraphs are
added, changed ones marked as fuzzy, others dropped. ``fewshot build --language zh_CN`` makes the
notebooks. To begin a language, make the folder ``fewshot_lib/locale/LANGUAGE/LC_MESSAGES``.
"""

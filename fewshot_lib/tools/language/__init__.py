"""Make other languages' editions of the course from the English one and their catalogues.

English is the source; a translation is a folder of catalogues (``.po``, gettext's format), and no
code: one for each notebook and each exercise, and one each for captions, questions, predictions,
claims, and what ``checker``, ``reading`` and the command line say. A paragraph is the unit: also a
heading, an item of a list, a row of a table.

1. Make the folder ``fewshot_lib/locale/LANGUAGE/LC_MESSAGES``, and run
   ``python -m fewshot_lib.tools.language LANGUAGE [NAME …]``. It adds what is new, marks what was
   changed as fuzzy, and drops what is gone.
2. Translate. Start with the glossary in notebook 00: the first column of a translated row has the
   language's words, commas between words for one thing. These words are then asked for everywhere.
   Formulas, code, numbers, links and ``{places}`` stay as they are; links are led to the right
   folder when the notebook is made. A pointer (``notebook 01, «Dice»``) names a heading as the
   translated notebook has it.
3. ``fewshot build --language LANGUAGE [NAME]`` makes ``notebooks/zh/…`` and ``exercises/zh/…`` from
   the English ones: the same code and names, and the outputs of a run in that language.
   ``pytest --nbval notebooks/zh exercises/zh`` repeats that run; ``make test`` does not, since the
   code is the English notebooks', which it runs.
4. When all of it is there, add the language to ``fewshot_lib/locale/complete.txt``. From then on
   ``fewshot build --check`` names every paragraph that is untranslated, fuzzy or different from the
   English one in what must be the same, and a reader's locale chooses the language.

A notebook speaks the language of its folder; ``FEWSHOT_LANGUAGE`` overrides that and the locale. In
learner-facing Python ``_("words")`` says words in the reader's language; it takes a literal, with
``{places}`` for what varies. Names of answers, checks and mistakes are keys and stay English; so do
code, labels inside figures, and what teachers and developers are told.
"""

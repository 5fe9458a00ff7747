"""Check answers: what an exercise is, how an answer is run and judged, what a notebook calls.

Knows nothing of what is taught: a course hands itself over in :mod:`fewshot_lib.checker.course`.
"""

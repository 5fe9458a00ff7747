"""Grade submissions: collect, read, run in a sandbox, judge outside it, report.

Knows nothing of what is taught: it asks :mod:`fewshot_lib.checker` for the course.
"""

"""A web site of the saved notebooks: ``make book``, into ``build/book/html``.

Nothing is executed: the pages show what the notebooks were saved with. They need no server and no
network. Only the search wants a server, because a browser lets no page read its neighbours on disk.
"""

from fewshot_lib.tools.book.build import build

__all__ = ["build"]

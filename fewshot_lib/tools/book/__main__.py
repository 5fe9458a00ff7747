"""Make the book of this course: ``python -m fewshot_lib.tools.book``."""

from fewshot_lib.tools.book import build
from fewshot_lib.tools.machine import course_folder


def main() -> None:
    """Make the book beside the course."""
    course = course_folder()
    if course is None:
        raise SystemExit("The notebooks are not beside the library.")
    print(f"The book: {build(course, course / 'build' / 'book')}")


if __name__ == "__main__":
    main()

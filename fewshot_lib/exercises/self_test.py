"""Exercise 09: the note's own questions (note §6); its derivation and code are in 04 and 05."""

from __future__ import annotations

from fewshot_lib.exercises.spec import Exercise, Prose

WHY = Prose(
    name="why_prototypes",
    points=3,
    rubric=[
        "says that a prototype is computed from the support, not learned: a new class needs no new "
        "weights and no training step",
        "says that a mean of K vectors has few free numbers and less scatter than one example "
        "(variance σ²/K along each axis), so that few examples are not overfitted",
        "says that what is learned, the embedding, is shared by all classes and learned from "
        "classes with many labels",
        "names what must hold: the embedding puts each class around one centre, alike in all "
        "directions and classes (the Gaussian reading)",
        "names a limit: a class of several parts (background), unequal shots, a new site whose "
        "images the encoder has not met",
    ],
    model=(
        "What must be learned from many examples and what must be learned from few are kept apart. "
        "The embedding has all the weights and is learned from classes with many labels. A new "
        "class brings only its prototype, the mean of its embedded support: it is computed, not "
        "learned, so that nothing can be overfitted by training on five images. As an estimate a "
        "mean is modest, too: its scatter is σ²/K along each axis, and with one shot it is the "
        "example itself. It suits if the embedding gathers each class around one centre, with the "
        "same spread in all directions and for all classes; then the nearest prototype is the most "
        "probable class. It fails where that fails: background has many parts and no one centre, "
        "classes with unequal shots are judged by prototypes of unequal quality, and an encoder "
        "that has never seen a scanner may put its images anywhere."
    ),
)

DEPLOYMENT = Prose(
    name="deployment",
    points=4,
    rubric=[
        "another scanner, protocol or population moves the embedding; support from the new site "
        "moves the prototypes, not the encoder",
        "which slices are labelled decides much: the result depends on the support, and its spread "
        "over supports must be reported",
        "evaluation that leaks (the extent of the organ in the query, organs or people seen in "
        "training) promises more than deployment keeps",
        "says how failure is noticed: slices without the organ, uncertainty and its calibration, a "
        "person who looks",
        "asks for a baseline: copying the support mask, registration, a network trained on the few "
        "labels, a foundation model",
        "asks what it saves: minutes of an expert for a label, against minutes of correction",
    ],
    model=(
        "A new site differs in scanner, protocol and patients. A few labelled slices from it move "
        "the prototypes to the right place, but they cannot repair an encoder that has lost the "
        "difference between two organs. Which slices are labelled matters as much as how many, so "
        "one number from one support promises nothing; the spread over supports belongs to the "
        "result. Published numbers often come from evaluations that know where in the query the "
        "organ begins and ends, and in deployment nobody knows that; slices without the organ are "
        "where false alarms come from. Someone has to notice failure: a probability that has been "
        "calibrated at the site, a rule for when a person must look. And the method must beat what "
        "is simpler: the copied support mask, registration, a network trained on the same labels. "
        "What decides in the end is whether the expert's minutes for labelling and correcting are "
        "fewer than for drawing by hand."
    ),
)

EXERCISE = Exercise(
    number=9,
    name="self_test",
    title="The note's self-test",
    answers=[],
    prose=[WHY, DEPLOYMENT],
)

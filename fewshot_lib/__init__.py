"""A critical, executable companion to a reading note on few-shot medical image segmentation.

One concept, one module: ``episodes``, ``prototypes``, ``mixture``, ``networks``, ``training`` and
``evaluation`` hold the mathematics and import only each other, torch and numpy; ``data``,
``figures`` and ``reading`` serve the notebooks; ``exercises`` and ``classroom`` serve exercises and
grading. Nothing is imported here, so that ``import fewshot_lib.prototypes`` costs no more than
``import torch``.
"""

__version__ = "0.1.0"

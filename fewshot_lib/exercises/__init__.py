"""The exercises of the course, one module each, and the objects that their cases need."""

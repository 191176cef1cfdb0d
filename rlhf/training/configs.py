"""The configuration of each training stage: frozen dataclasses, standard library only.

`config.json` in a run folder holds exactly the fields of the stage's class; `load` refuses an
unknown key, a missing required one and a value out of range, each in one sentence. The web forms
and `docs/settings.md` are built from these fields, so each has a docstring-like comment after it.
"""

"""Looks at a run folder before any compute is spent on it; `python -m rlhf.training.doctor RUN_DIR`.

`examination` looks at the folder of any stage, `stages` at what is special to one; `checks`, `probe`
and `estimates` hold the single checks, `report` what they found.
"""

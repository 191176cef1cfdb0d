"""Looks at a run folder before any compute is spent on it; `python -m rlhf.training.doctor RUN_DIR`.

`examination` examines the folder of any stage, `stages` what is special to one; `checks`, `probe`
and `estimates` hold the single checks, `report` their findings.
"""

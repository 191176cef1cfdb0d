"""Checks a run folder before a run spends compute; `python -m rlhf.training.doctor RUN_DIR`.

`examination` examines the folder of any stage, `stages` what is special to one; `checks`, `probe`
and `estimates` hold the single checks, `report` their findings.
"""

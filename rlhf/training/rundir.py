"""Names of the files in a run folder and how they are written: standard library only."""

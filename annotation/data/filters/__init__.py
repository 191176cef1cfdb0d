"""Filters: plain functions that find something in a text, with a score, a reason and a span.

`table` lists them all. A filter leaves findings and deletes nothing: what is done with a finding is
decided by a person, who sees the filter's precision and recall next to its threshold.
"""

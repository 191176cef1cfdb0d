"""Rows written to files: `schemas` of the columns, `writers` per file format, `spreadsheets` as CSV."""

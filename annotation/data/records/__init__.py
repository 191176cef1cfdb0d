"""Rows of prompts, responses, comparisons and judgments by filters, words and order, in pages."""

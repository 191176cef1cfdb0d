"""The training side: plain Python, no Django, no database. See docs/formats.md."""

"""Files that other people made, read into checked prompts and comparisons; nothing is written.

`read_file` reads a whole file, `rows` turns its bytes into rows, `formats` lists every format and
recognizes which one a row is in. Each family of formats has its module: `plain_prompts`,
`conversations`, `pairs`, `rankings`, `trees`; `unjudged` reads the rows of an upload over the API.
"""

"""How fast the mailroom is, on this machine, beside what plain files allow: `python -m tools.bench --help`.

`measuring` says what a row of the table is and takes the samples, each in a process of its own; `posting`, `waking`,
`indexing`, `lookups` and `serving` hold the rows; `floor` is the least that plain files need for the same promise;
`corpus` writes productions to measure on; `machine` and `table` describe and show. Every sample is checked: what was
posted is read back and counted before a figure counts.
"""

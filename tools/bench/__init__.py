"""How fast the mailroom is, on this machine, beside what plain files allow and beside its peers: `python -m tools.bench
--help`.

`measuring` says what a row of the table is and takes the samples, each in a process of its own; `posting`, `claiming`,
`waking`, `indexing`, `lookups`, `growth` and `serving` hold the rows; `floor` is the least that plain files need for
the same promise. The peers: `servers` starts them, `redis_peer`, `nats_peer` and `sqlite_peer` post, wait and answer,
`streams` claims from Redis, `libraries` asks them about a large production. `corpus` writes productions to measure on;
`machine`, `table` and `chart` describe and show. Every sample is checked: what was posted is read back and compared
before a figure counts.
"""

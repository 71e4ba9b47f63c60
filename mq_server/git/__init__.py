"""A production in git: its repository, set-up, merges, diffs, commits and the past.

`repository` runs git; everything else here says what it is to do. Nothing below this package knows of git.
"""

"""Changed files by the thousand: each ends in an answer or in one sentence, soon.

Each module runs by itself, ``python -m tests.fuzz.MODULE N SEED``, and as a quick test.
"""

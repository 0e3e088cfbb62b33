"""A page of tables in sections, of which a run may renew a few."""

from __future__ import annotations


def merged(new: str, old: str) -> str:
    r"""`new`, with those sections of `old` that it lacks; sections keep the old page's places.

    Examples
    --------
    >>> print(merged("# P\n\n## B\n\n2\n", "# P\n\n## A\n\n1\n\n## B\n\n1\n"))
    # P
    <BLANKLINE>
    ## A
    <BLANKLINE>
    1
    <BLANKLINE>
    ## B
    <BLANKLINE>
    2
    <BLANKLINE>
    """
    head, *fresh = new.split("\n## ")
    _, *kept = old.split("\n## ")
    tables = {section.partition("\n")[0]: section.rstrip() for section in (*kept, *fresh)}
    return "\n\n## ".join([head.rstrip(), *tables.values()]) + "\n"

"""One module per benchmark: ``TITLE`` and ``async def run(scale) -> list[Figure | Curve]``.

The first paragraph of a module's docstring says, in the printed page, what is measured and how.
"""

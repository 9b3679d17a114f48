"""The contract of Calque: value types, commands, events, broker requests, queries, subjects and the codec.

Everything that travels on the bus is a frozen msgspec ``Struct`` of this package, wrapped in the
CloudEvents 1.0 envelope of :mod:`schemas.envelope`. This package imports nothing of the other rooms.
"""

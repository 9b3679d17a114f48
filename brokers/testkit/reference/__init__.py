"""Small brokers in memory that keep the contract, and can be told to break it in one named way.

A defect has the id of the check that must catch it. They show that every check catches something, and read as the
contract in its shortest form.
"""

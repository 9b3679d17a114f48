"""What every copy repository broker is made of: the store format, the HTTPS endpoint, transfers, and the broker itself.

How to make a copy repository broker for another place:

- Where the bytes lie is an :class:`brokers.repository.objects.ObjectStore`: put, read, list and delete of whole
  objects. The store needs no locks, but what was put or deleted must be seen by every later `read` and `list`.
- An opened repository is a :class:`brokers.repository.opened.CopyRepository`; endpoint, transfer and broker know no
  more than that.
- :class:`brokers.repository.format1.repository.Repository` is one of format 1 in any object store:
  `Repository.open(objects, state=settings.state_dir, options=settings.options())`. It closes the store when it closes.
- The broker is a subclass of :class:`brokers.repository.broker.RepositoryBroker` whose `open_repository` does that,
  with settings that subclass :class:`brokers.repository.settings.RepositorySettings` (TLS, host, port, keys, size of
  packs). `__main__` is `run_broker(YourBroker, YourSettings)` of `brokers.sdk.main`.
- Trouble of the store that passes by itself is raised as a temporary :class:`schemas.problems.CalqueError`, other
  trouble as a permanent one. `OSError` is taken for trouble of a file system; `explain` may say it better.

Several brokers may import this room; it knows none of them.
"""

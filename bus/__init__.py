"""The bus: the only room that imports nats. Connections, request and reply, event store, feeds, work queues."""

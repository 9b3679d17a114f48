"""The process that sends events on as webhooks: a subscriber of the hub's record, and no part of the hub.

What a webhook is stands in the record (``hub.domain.webhook``). How far it is stands in the durable consumer that it
has on ``EVENTS``; what was given up lies in a stream of dead letters. So the process may die at any time: what was not
acknowledged is sent again, and a receiver drops repeats by the id.
"""

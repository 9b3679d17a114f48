"""What the events add up to, in memory: tables that are fed by one writer each, joined when they are asked.

Every row belongs to one writer's aggregate, so the order between writers can't matter; what needs several writers
(an image: the hub's entry, the site's content, the locations of its copies) is put together by the views.
"""

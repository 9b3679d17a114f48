"""A cluster in this process: enough of the API server, its controllers, and a node that runs pods as processes."""

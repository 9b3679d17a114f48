"""The filesystem copy repository broker (CRB): a repository of format 0 in a directory, the HTTPS endpoint that
serves it, and the broker service on the site's bus."""

"""The filesystem copy repository broker (CRB): a repository in a directory."""

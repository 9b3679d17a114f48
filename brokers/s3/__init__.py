"""The data service broker for S3: a versioned bucket per data service, scoped credentials per binding."""

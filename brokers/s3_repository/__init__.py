"""The S3 copy repository broker: a repository in a bucket, or below a prefix of one, of any S3 endpoint."""

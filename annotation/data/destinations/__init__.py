"""Places outside where a version can be sent: `hub` repositories and `s3` buckets; `target` names them."""

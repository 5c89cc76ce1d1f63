"""Reports of a running processor, and the operators' desk: the data behind the admin API."""

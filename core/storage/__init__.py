"""What stands beside the primary database: a pooler before it, and a replica behind it."""

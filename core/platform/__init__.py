"""What an administrator sets at run time, and the record of who did what."""

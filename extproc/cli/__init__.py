"""The command line: one file for each verb that does more than call the library."""

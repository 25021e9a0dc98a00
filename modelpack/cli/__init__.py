"""The command line: one file a command. The only floor that prints."""

"""The command line: `main` dispatches, one file per command; each parses, calls one function of the library, prints."""

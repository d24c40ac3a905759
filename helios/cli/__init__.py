"""The command line. Thin: it parses, calls one function of the library and reports."""

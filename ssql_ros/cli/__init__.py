"""The command line `ssql`: verbs over the library."""

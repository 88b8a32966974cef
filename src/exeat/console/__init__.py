"""The web console, one file per page.  Filled by a later issue."""

"""The REST API, one file per resource.  Filled by a later issue."""

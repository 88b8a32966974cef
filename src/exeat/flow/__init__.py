"""Labels, provenance and runs; pure.  Filled by a later issue."""

"""Outside systems: notifiers, exporters, key management.  Filled by later issues."""

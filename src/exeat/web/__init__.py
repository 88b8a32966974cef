"""Manners that api and console share.  Filled by a later issue."""

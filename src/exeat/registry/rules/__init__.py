"""The registry's pure rules: pins, look-alikes, suspicious text, proposed profiles, authority."""

"""The words everything else is said in: digest, name, blob, size, report. Values only, no IO."""

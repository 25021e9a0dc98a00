"""Documents: what models and bundles say. Pure: no IO."""

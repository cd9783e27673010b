"""What a backbone says of clips, kept by content: computed once, read by many heads. `FeatureStore` is the way in."""

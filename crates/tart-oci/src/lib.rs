//! Images as registries and archives have them, and their layers merged into one tar stream.

//! The director's pure code, as a userspace library.

//! PVFS metadata manager daemon.

fn main() {}

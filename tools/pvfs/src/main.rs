//! The pvfs command: manage and inspect a PVFS file system.

fn main() {}

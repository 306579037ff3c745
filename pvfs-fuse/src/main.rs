//! PVFS FUSE client: mounts the file system.

fn main() {}

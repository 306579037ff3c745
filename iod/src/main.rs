//! PVFS I/O daemon: keeps stripes and moves them.

fn main() {}

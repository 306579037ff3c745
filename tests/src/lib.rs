//! Tests across processes: real daemons, real mounts, the VM, the demo.

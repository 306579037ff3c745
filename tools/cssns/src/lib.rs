//! The cluster on one machine: network namespaces, the director VM, daemons, the demo.

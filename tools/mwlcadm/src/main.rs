//! Administer the ipvs_mwlc director.

fn main() {}

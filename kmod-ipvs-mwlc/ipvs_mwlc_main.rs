// SPDX-License-Identifier: GPL-2.0-only
//! try
use kernel::prelude::*;
#[allow(warnings)]
mod bindings { include!(env!("IPVS_MWLC_BINDINGS")); }
module! { type: M, name: "ipvs_mwlc", authors: ["CSSNS"], description: "x", license: "GPL", alias: ["net-pf-16-proto-16-family-IPVS"], }
struct M;
impl kernel::Module for M { fn init(_m: &'static ThisModule) -> Result<Self> { pr_info!("j {}\n", unsafe { bindings::mwlc_jiffies() }); Ok(M) } }

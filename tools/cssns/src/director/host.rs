// SPDX-License-Identifier: MIT
//! Inserts the module into this machine's own kernel, where that kernel can.

use crate::ledger::{Ledger, Resource};
use crate::process::run;
use anyhow::{Context as _, bail};
use std::path::Path;

/// Inserts `name`: from `file` when it is ours, else by `modprobe`. A module that is already there
/// stays there afterwards.
///
/// # Errors
/// Says why this kernel cannot take it.
pub(super) fn insert(name: &str, file: Option<&Path>, ledger: &Ledger) -> anyhow::Result<()> {
    if exists(&format!("/sys/module/{name}")) {
        return Ok(());
    }
    let release = run(&["uname", "-r"])?;
    let wanted = file
        .map(|file| run(&["modinfo", "-F", "vermagic", &file.display().to_string()]))
        .transpose()
        .context("reading the module's version")?;
    if let Err(reason) = can_insert(
        exists("/proc/modules"),
        release.trim(),
        wanted.as_deref(),
        exists("/sys/module/ip_vs"),
    ) {
        bail!("HOST=1: {reason}; without HOST=1 the director is a guest with the right kernel");
    }
    ledger.make(
        Resource::Module {
            name: name.to_owned(),
        },
        || match file {
            Some(file) => run(&["insmod", &file.display().to_string()]).map(drop),
            None => run(&["modprobe", name]).map(drop),
        },
    )
}

fn exists(path: &str) -> bool {
    Path::new(path).exists()
}

/// Whether a kernel can take the module: one that loads modules, is the release in `vermagic` (whose
/// first word is one), and does not have the stock module that serves the same netlink family.
fn can_insert(
    loads_modules: bool,
    release: &str,
    vermagic: Option<&str>,
    has_stock: bool,
) -> Result<(), String> {
    if !loads_modules {
        return Err(format!(
            "this machine's kernel {release} cannot load modules (CONFIG_MODULES is off)"
        ));
    }
    let Some(vermagic) = vermagic else {
        return Ok(());
    };
    let wanted = vermagic.split_ascii_whitespace().next().unwrap_or_default();
    if wanted != release {
        return Err(format!(
            "the module was built for kernel {wanted}, this machine runs {release}"
        ));
    }
    if has_stock {
        return Err(
            "ip_vs is loaded, and both serve the netlink family IPVS: rmmod it first".to_owned(),
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_obstacle_is_named() {
        let magic = Some("7.3.4+deb13-cloud-amd64 SMP preempt mod_unload \n");
        assert_eq!(
            can_insert(true, "7.3.4+deb13-cloud-amd64", magic, false),
            Ok(())
        );
        assert_eq!(can_insert(true, "any", None, true), Ok(()));
        let cases = [
            (false, "7.3.4+deb13-cloud-amd64", false, "CONFIG_MODULES"),
            (true, "6.1.0-1-amd64", false, "6.1.0-1-amd64"),
            (true, "7.3.4+deb13-cloud-amd64", true, "rmmod"),
        ];
        for (modules, release, stock, word) in cases {
            let reason = can_insert(modules, release, magic, stock).unwrap_err();
            assert!(reason.contains(word), "{reason}");
        }
    }
}

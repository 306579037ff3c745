// SPDX-License-Identifier: MIT
//! Finds files of the checkout and its builds from wherever a command or a test is started.

use std::path::PathBuf;

/// The file `relative` in the nearest directory that has it: the working directory and those above,
/// then those above the running program, which stands in the checkout's `target/`.
#[must_use]
pub fn checkout_file(relative: &str) -> Option<PathBuf> {
    let starts = [std::env::current_dir(), std::env::current_exe()];
    starts
        .iter()
        .flatten()
        .flat_map(|start| start.ancestors())
        .map(|dir| dir.join(relative))
        .find(|path| path.exists())
}

/// The program `name` as this checkout built it: beside the running program (release or debug, and
/// one above, where tests run from `deps/`), else `target/release`, else `target/debug`, else `PATH`.
#[must_use]
pub fn program(name: &str) -> Option<PathBuf> {
    let beside = std::env::current_exe().ok().and_then(|exe| {
        exe.ancestors()
            .skip(1)
            .take(2)
            .map(|dir| dir.join(name))
            .find(|path| path.is_file())
    });
    beside
        .or_else(|| checkout_file(&format!("target/release/{name}")))
        .or_else(|| checkout_file(&format!("target/debug/{name}")))
        .or_else(|| on_path(name))
}

/// The program `name` in the directories of `PATH` and the system's own, which an ordinary shell's
/// `PATH` leaves out.
#[must_use]
pub fn on_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from))
        .map(|dir| dir.join(name))
        .find(|candidate| candidate.is_file())
}

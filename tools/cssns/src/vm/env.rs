// SPDX-License-Identifier: MIT
//! Where the target kernel is: reads `build/kmod/env`, which `scripts/kmod-env.sh` writes.

use super::VmError;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// Where the file stands below the checkout's root.
pub const ENV_FILE: &str = "build/kmod/env";

/// Overrides where the file is.
pub const ENV_FILE_VARIABLE: &str = "CSSNS_KMOD_ENV";

/// The target kernel and the Debian root that its programs come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KmodEnv {
    /// The kernel's release, as `uname -r` prints it in the guest.
    pub kver: String,
    /// The bootable image.
    pub kernel_image: PathBuf,
    /// The directory of this release's modules (it contains `kernel/`).
    pub modules_dir: PathBuf,
    /// The Debian root that guest programs and their libraries come from.
    pub trixie_root: PathBuf,
}

impl KmodEnv {
    /// Finds and reads the file: `$CSSNS_KMOD_ENV`, else `build/kmod/env` in the working directory
    /// or one above it.
    ///
    /// # Errors
    /// [`VmError::NoKernel`] when there is none, or when what it names is not there.
    pub fn locate() -> Result<Self, VmError> {
        let path = match std::env::var_os(ENV_FILE_VARIABLE) {
            Some(path) => PathBuf::from(path),
            None => crate::paths::checkout_file(ENV_FILE).ok_or_else(|| {
                VmError::NoKernel(format!("{ENV_FILE} is not here or above: run `make kmod`"))
            })?,
        };
        Self::read(&path)
    }

    /// Reads the file at `path` and checks that the image and the modules are there.
    ///
    /// # Errors
    /// [`VmError::NoKernel`] when a variable or a file that it names is missing.
    pub fn read(path: &Path) -> Result<Self, VmError> {
        let text = std::fs::read_to_string(path)
            .map_err(|e| VmError::NoKernel(format!("{}: {e}", path.display())))?;
        let found = Self::parse(&text)
            .map_err(|name| VmError::NoKernel(format!("{}: no {name}=", path.display())))?;
        for part in [&found.kernel_image, &found.modules_dir, &found.trixie_root] {
            if !part.exists() {
                return Err(VmError::NoKernel(format!(
                    "{} is missing, named by {}: run `make kmod` again",
                    part.display(),
                    path.display()
                )));
            }
        }
        Ok(found)
    }

    /// Understands shell assignments, `KEY=value`, `export KEY='value'`; the error is the name of
    /// the variable that is missing.
    fn parse(text: &str) -> Result<Self, &'static str> {
        let variables = assignments(text);
        let get = |name: &'static str| {
            variables
                .get(name)
                .filter(|value| !value.is_empty())
                .cloned()
                .ok_or(name)
        };
        Ok(Self {
            kver: get("KVER")?,
            kernel_image: get("KERNEL_IMAGE")?.into(),
            modules_dir: get("KERNEL_MODULES_DIR")?.into(),
            trixie_root: get("TRIXIE_ROOT")?.into(),
        })
    }
}

fn assignments(text: &str) -> HashMap<String, String> {
    let mut found = HashMap::new();
    for line in text.lines() {
        let line = line.trim();
        let line = line.strip_prefix("export ").unwrap_or(line);
        if line.starts_with('#') {
            continue;
        }
        if let Some((name, value)) = line.split_once('=') {
            found.insert(name.trim().to_owned(), unquote(value.trim()));
        }
    }
    found
}

fn unquote(value: &str) -> String {
    for quote in ['\'', '"'] {
        if let Some(inner) = value
            .strip_prefix(quote)
            .and_then(|v| v.strip_suffix(quote))
        {
            return inner.to_owned();
        }
    }
    // `printf %q` escapes single characters with a backslash.
    value.replace('\\', "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shell_assignments_are_understood() {
        let text = "# made by scripts/kmod-env.sh\n\
                    KVER=7.3.4+deb13-cloud-amd64\n\
                    export KERNEL_IMAGE='/c a/vmlinuz'\n\
                    KERNEL_MODULES_DIR=\"/m\"\n\
                    TRIXIE_ROOT=/r\\ oot\n\
                    OTHER=1\n";
        let env = KmodEnv::parse(text).unwrap();
        assert_eq!(env.kver, "7.3.4+deb13-cloud-amd64");
        assert_eq!(env.kernel_image, PathBuf::from("/c a/vmlinuz"));
        assert_eq!(env.modules_dir, PathBuf::from("/m"));
        assert_eq!(env.trixie_root, PathBuf::from("/r oot"));
    }

    #[test]
    fn a_missing_or_empty_variable_is_named() {
        assert_eq!(KmodEnv::parse(""), Err("KVER"));
        assert_eq!(
            KmodEnv::parse("KVER=7\nKERNEL_IMAGE=\n"),
            Err("KERNEL_IMAGE")
        );
    }

    proptest::proptest! {
        #[test]
        fn never_panics(text in "(?s).{0,200}") {
            let _ = KmodEnv::parse(&text);
        }
    }
}
